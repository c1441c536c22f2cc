// Does this board compute what the desktop computed? Says so row by row, and then in one line.
//
//     selftest FOLDER [--arithmetic fp16] [--threads 1] [--rounds 20] [--json FILE]
//
// Exit codes: 0 PASS, 1 FAIL, 2 wrong usage, 3 a file is missing or broken, or cannot be written.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "checks.hpp"
#include "machine.hpp"

namespace {

constexpr char usage[] =
    "usage: selftest FOLDER [--arithmetic fp32|fp16s|fp16|bf16] [--threads N] [--rounds N] "
    "[--json FILE]\n"
    "  FOLDER holds golden.mbv3g and the model; fp16 is ncnn's default\n";

class UsageError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Options {
    std::string folder, arithmetic = "fp16", json;
    int threads = 1, rounds = 20;
};

int whole_number(std::string const& word, int least, int most) {
    char* end = nullptr;
    long const value = std::strtol(word.c_str(), &end, 10);
    if (word.empty() || *end != '\0' || value < least || value > most) {
        throw UsageError(word + " is not an integer from " + std::to_string(least) + " to " +
                         std::to_string(most));
    }
    return static_cast<int>(value);
}

Options options_from(int argc, char const* const* argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        std::string const word = argv[i];
        if (word.empty() || word[0] != '-') {
            if (!options.folder.empty()) {
                throw UsageError("more than one folder: " + word);
            }
            options.folder = word;
            continue;
        }
        if (i + 1 == argc) {
            throw UsageError(word + " needs a value");
        }
        std::string const value = argv[++i];
        if (word == "--arithmetic") {
            options.arithmetic = value;
        } else if (word == "--json") {
            options.json = value;
        } else if (word == "--threads") {
            options.threads = whole_number(value, 1, 256);
        } else if (word == "--rounds") {
            options.rounds = whole_number(value, 0, 100000);
        } else {
            throw UsageError("unknown option: " + word);
        }
    }
    if (options.folder.empty()) {
        throw UsageError("the folder is missing");
    }
    return options;
}

selftest::Limits const& limits_of(selftest::Golden const& golden, std::string const& arithmetic) {
    selftest::Limits const* const limits = golden.limits_of(arithmetic);
    if (limits == nullptr) {
        std::string known;
        for (selftest::Limits const& row : golden.limits) {
            known += " " + row.arithmetic;
        }
        throw UsageError("the package has no limits for " + arithmetic + ", only for" + known);
    }
    return *limits;
}

selftest::Report report_of(selftest::Golden const& golden, Options const& options) {
    selftest::Report report;
    report.model = golden.name;
    report.made_by = golden.made_by;
    report.arithmetic = options.arithmetic;
    report.ncnn = selftest::ncnn_release();
    report.library = mbv3ssd_version();
    report.architecture = selftest::architecture();
    report.features = selftest::cpu_features();
    report.threads = options.threads;
    report.rounds = options.rounds;
    return report;
}

void print_machine(selftest::Report const& report) {
    std::string features;
    for (std::string const& feature : report.features) {
        features += " " + feature;
    }
    std::printf("%s, made by %s\nncnn %s on %s:%s\n", report.model.c_str(),
                report.made_by.c_str(), report.ncnn.c_str(), report.architecture.c_str(),
                features.c_str());
}

void print_arithmetic(selftest::Report const& report) {
    std::printf("arithmetic %s", report.arithmetic.c_str());
    if (report.in_effect != report.arithmetic) {
        std::printf(", which is %s with this processor, ncnn and model", report.in_effect.c_str());
    }
    std::printf(", threads %d\n", report.threads);
}

void write_text(std::string const& path, std::string const& text) {
    std::FILE* const file = std::fopen(path.c_str(), "wb");
    bool good = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
    good = (file == nullptr || std::fclose(file) == 0) && good;
    if (!good) {
        throw std::runtime_error(path + " cannot be written");
    }
}

// Returns whether the package proved itself.
bool prove(Options const& options) {
    selftest::Package const package = selftest::open_package(options.folder);
    selftest::Report report = report_of(package.golden, options);
    static_cast<void>(limits_of(package.golden, options.arithmetic));  // else it is no use to go on
    report.files = package.found;
    if (!options.json.empty()) {
        write_text(options.json, "");  // an older result must not be taken for this one
    }
    print_machine(report);
    selftest::Network const network(package, options.arithmetic, options.threads);
    report.in_effect = selftest::arithmetic_in_effect(options.arithmetic, package, network);
    print_arithmetic(report);
    selftest::Limits const& limits = limits_of(package.golden, report.in_effect);
    selftest::Checks checks(package, network, limits, options.rounds);
    checks.run([&](selftest::Row const& row) {
        std::printf("%s\n", line_from(row).c_str());
        static_cast<void>(std::fflush(stdout));  // what was found must be known if the next dies
        report.rows.push_back(row);
    });
    if (!options.json.empty()) {
        write_text(options.json, json_from(report));
        std::printf("wrote %s\n", options.json.c_str());
    }
    std::string failed;
    for (selftest::Row const& row : report.rows) {
        failed += row.status == selftest::Status::fail ? " " + row.name : "";
    }
    if (!report.passed()) {
        std::printf("FAIL:%s\n", failed.c_str());
    } else if (report.in_effect == report.arithmetic) {
        std::printf("PASS: %s computes here in %s what it computed on the desktop\n",
                    report.model.c_str(), report.in_effect.c_str());
    } else {
        std::printf("PASS: %s computes here in %s what it computed on the desktop; %s did not take "
                    "effect\n",
                    report.model.c_str(), report.in_effect.c_str(), report.arithmetic.c_str());
    }
    return report.passed();
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return prove(options_from(argc, argv)) ? 0 : 1;
    } catch (UsageError const& error) {
        static_cast<void>(std::fprintf(stderr, "%s\n%s", error.what(), usage));
        return 2;
    } catch (std::exception const& error) {
        static_cast<void>(std::fprintf(stderr, "%s\n", error.what()));
        std::printf("FAIL: the test could not be carried out\n");
        return 3;
    }
}
