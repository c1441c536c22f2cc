// The rows of a self-test, each with its own question.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "passes.hpp"

namespace selftest {

// Returns the arithmetic that takes place where `asked` is asked for. It is measured: a single
// rounding to 16 bits costs more than float32's limit, so that heads within it were not rounded at
// all. So it is with ncnn on processors that cannot compute in halves, but for inner products.
[[nodiscard]] std::string arithmetic_in_effect(std::string const& asked, Package const& package,
                                               Network const& network);

class Checks {
   public:
    // `limits` are those of the arithmetic in effect. Both must outlive it.
    Checks(Package const& package, Network const& network, Limits const& limits, int rounds);

    // Runs the checks one after the other; each row is passed to `show` as soon as it is known.
    template <class Show>
    void run(Show show) {
        for (Check const& check : checks) {
            show(row_of(check));
        }
    }

   private:
    struct Check {
        char const* name;
        Row (Checks::*run)();
    };
    static Check const checks[8];

    [[nodiscard]] Row row_of(Check const& check);
    [[nodiscard]] Row row_without_tail() const;

    Row files();
    Row preprocess();
    Row priors();
    Row postprocess();
    Row heads();
    Row boxes();
    Row detection_out();
    Row times();

    [[nodiscard]] Output const& output_of_golden(std::size_t image);
    [[nodiscard]] Output const& output_of_picture(std::size_t image);

    Package const& package_;
    Network const& network_;
    Limits const& limits_;
    int rounds_;
    std::vector<std::optional<Output>> from_golden_, from_picture_;  // an image each, run once
};

}  // namespace selftest
