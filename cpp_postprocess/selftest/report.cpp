#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace selftest {
namespace {

char const* word_of(Status status) {
    switch (status) {
        case Status::pass:
            return "PASS";
        case Status::fail:
            return "FAIL";
        case Status::info:
            return "INFO";
        case Status::skipped:
            break;
    }
    return "SKIPPED";
}

std::string quoted(std::string const& words) {
    std::string text = "\"";
    for (char const letter : words) {
        if (letter == '"' || letter == '\\') {
            text += '\\';
            text += letter;
        } else if (static_cast<unsigned char>(letter) < 0x20) {
            char escaped[8];
            static_cast<void>(std::snprintf(escaped, sizeof escaped, "\\u%04x", letter));
            text += escaped;
        } else {
            text += letter;
        }
    }
    return text + '"';
}

// JSON has no numbers for NaN and infinity: they become strings.
std::string number(double value) {
    if (std::isnan(value)) {
        return "\"nan\"";
    }
    if (std::isinf(value)) {
        return value > 0 ? "\"inf\"" : "\"-inf\"";
    }
    char text[32];
    static_cast<void>(std::snprintf(text, sizeof text, "%.9g", value));
    return text;
}

template <class Things, class Text>
std::string joined(Things const& things, Text text) {
    std::string all;
    for (auto const& thing : things) {
        all += all.empty() ? "" : ", ";
        all += text(thing);
    }
    return all;
}

std::string json_from(Row const& row) {
    return "{\"name\": " + quoted(row.name) + ", \"status\": " + quoted(word_of(row.status)) +
           ", \"text\": " + quoted(row.text) + ", \"numbers\": {" +
           joined(row.numbers,
                  [](auto const& one) { return quoted(one.first) + ": " + number(one.second); }) +
           "}}";
}

}  // namespace

bool Report::passed() const {
    auto const is = [](Status status) {
        return [status](Row const& row) { return row.status == status; };
    };
    return std::any_of(rows.begin(), rows.end(), is(Status::pass)) &&
           std::none_of(rows.begin(), rows.end(), is(Status::fail));
}

std::string line_from(Row const& row) {
    char start[48];
    static_cast<void>(
        std::snprintf(start, sizeof start, "%-13s  %-7s  ", row.name.c_str(), word_of(row.status)));
    return start + row.text;
}

std::string json_from(Report const& report) {
    return "{\n\"schema\": 1,\n\"verdict\": " + quoted(report.passed() ? "PASS" : "FAIL") +
           ",\n\"model\": " + quoted(report.model) + ",\n\"made_by\": " + quoted(report.made_by) +
           ",\n\"arithmetic\": " + quoted(report.arithmetic) +
           ",\n\"in_effect\": " + quoted(report.in_effect) + ",\n\"ncnn\": " + quoted(report.ncnn) +
           ",\n\"library\": " + quoted(report.library) +
           ",\n\"architecture\": " + quoted(report.architecture) + ",\n\"features\": [" +
           joined(report.features, quoted) +
           "],\n\"threads\": " + std::to_string(report.threads) +
           ",\n\"rounds\": " + std::to_string(report.rounds) + ",\n\"files\": {" +
           joined(report.files,
                  [](CheckedFile const& one) {
                      return quoted(one.name) + ": " + quoted(one.sha256);
                  }) +
           "},\n\"rows\": [\n" +
           joined(report.rows, [](Row const& row) { return "\n" + json_from(row); }) + "\n]\n}\n";
}

}  // namespace selftest
