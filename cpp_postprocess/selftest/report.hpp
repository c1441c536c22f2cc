// The result of a self-test: rows for people, JSON for `mbv3ssd-deploy verify --device-result`.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace selftest {

enum class Status { pass, fail, info, skipped };

struct Row {
    std::string name;
    Status status = Status::pass;
    std::string text;  // what was found, with its limit
    std::vector<std::pair<std::string, double>> numbers;
};

struct CheckedFile {
    std::string name, sha256;
};

struct Report {
    std::string model, made_by;           // of the golden file
    std::string arithmetic, in_effect;    // the requested one, and the one that took effect
    std::string ncnn, library;            // versions
    std::string architecture;
    std::vector<std::string> features;    // of the CPU
    int threads = 1, rounds = 0;
    std::vector<CheckedFile> files;       // on this machine
    std::vector<Row> rows;

    [[nodiscard]] bool passed() const;
};

[[nodiscard]] std::string line_from(Row const& row);
[[nodiscard]] std::string json_from(Report const& report);

}  // namespace selftest
