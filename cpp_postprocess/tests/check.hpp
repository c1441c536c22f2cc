// doctest (vendor/doctest), and a check of an error's type and text.
#pragma once

#include <doctest.h>

// Checks that `expression` throws an Error whose message contains `words`.
#define CHECK_ERROR(Error, words, expression) \
    CHECK_THROWS_WITH_AS(static_cast<void>(expression), doctest::Contains(words), Error)
