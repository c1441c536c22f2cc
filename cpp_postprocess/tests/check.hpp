// A check that ends the test and says where. It stands in for a framework, which a board without a
// network could not fetch.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                            \
        }                                                                            \
    } while (false)

// Whether `expression` throws an Error whose message holds `words`.
#define CHECK_THROWS(Error, words, expression)                                       \
    do {                                                                             \
        std::string what_was_thrown = "nothing was thrown";                          \
        try {                                                                        \
            static_cast<void>(expression);                                           \
        } catch (Error const& error) {                                               \
            what_was_thrown = error.what();                                          \
        }                                                                            \
        if (what_was_thrown.find(words) == std::string::npos) {                      \
            std::fprintf(stderr, "%s:%d: not so: %s throws '%s', but: %s\n", __FILE__, __LINE__, \
                         #expression, words, what_was_thrown.c_str());               \
            std::exit(1);                                                            \
        }                                                                            \
    } while (false)
