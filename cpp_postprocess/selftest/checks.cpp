#include "checks.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "compare.hpp"
#include "machine.hpp"
#include "mbv3ssd/priors.hpp"

namespace selftest {
namespace {

std::string words(double value) {
    char text[32];
    static_cast<void>(std::snprintf(text, sizeof text, "%.2g", value));
    return text;
}

std::string of(std::size_t part, std::size_t whole) {
    return std::to_string(part) + " of " + std::to_string(whole);
}

Status judged(bool good) { return good ? Status::pass : Status::fail; }

// The worst of several images.
void take_worse(NumberDiff& all, NumberDiff const& one) {
    all.count += one.count;
    all.not_finite += one.not_finite;
    all.worst = std::max(all.worst, one.worst);
    all.relative = std::max(all.relative, one.relative);
}

void take(BoxDiff& all, BoxDiff const& one) {
    all.expected += one.expected;
    all.found_again += one.found_again;
    all.actual += one.actual;
    all.known += one.known;
    all.worst_score = std::max(all.worst_score, one.worst_score);
}

Row row_of_boxes(BoxDiff const& diff, Limits const& limits) {
    if (diff.expected == 0 && diff.actual == 0) {
        return {"", Status::skipped,
                "no score lies more than " + words(limits.margin) + " above the cut of its list", {}};
    }
    auto const enough = [&](std::size_t part, std::size_t whole) {
        return static_cast<double>(part) >= limits.box_share * static_cast<double>(whole);
    };
    Row row;
    row.status = judged(enough(diff.found_again, diff.expected) &&
                        enough(diff.known, diff.actual));
    row.text = of(diff.found_again, diff.expected) + " expected boxes matched, " +
               of(diff.known, diff.actual) + " found boxes matched, scores within " +
               words(diff.worst_score) + " (needed: a share of " + words(limits.box_share) +
               " at IoU " + words(limits.box_iou) + ", scores within " +
               words(limits.box_score) + ")";
    row.numbers = {{"expected", static_cast<double>(diff.expected)},
                   {"found_again", static_cast<double>(diff.found_again)},
                   {"actual", static_cast<double>(diff.actual)},
                   {"known", static_cast<double>(diff.known)},
                   {"worst_score", diff.worst_score}};
    return row;
}

// (2, 4 priors) as ncnn lays priors out: corners, and below them the variances.
std::vector<float> priorbox_from(mbv3ssd::Contract const& contract) {
    std::vector<mbv3ssd::Prior> const priors = mbv3ssd::build_priors(contract.priors);
    std::vector<float> rows;
    rows.reserve(priors.size() * 8);
    for (mbv3ssd::Prior const& prior : priors) {
        float const half_width = prior.width / 2;
        float const half_height = prior.height / 2;
        rows.insert(rows.end(), {prior.x - half_width, prior.y - half_height,
                                 prior.x + half_width, prior.y + half_height});
    }
    auto const centre = static_cast<float>(contract.coder.centre_variance);
    auto const size = static_cast<float>(contract.coder.size_variance);
    for (std::size_t i = 0; i < priors.size(); ++i) {
        rows.insert(rows.end(), {centre, centre, size, size});
    }
    return rows;
}

double relative_error(std::vector<float> const& expected, std::vector<float> const& actual) {
    return compare_numbers(expected.data(), expected.size(), actual.data(), actual.size()).relative;
}

template <class Work>
double median_milliseconds(int rounds, Work work) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> times;
    for (int i = 0; i < rounds; ++i) {
        auto const begin = Clock::now();
        work();
        times.push_back(
            std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
    auto const middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

}  // namespace

std::string arithmetic_in_effect(std::string const& asked, Package const& package,
                                 Network const& network) {
    GoldenImage const& golden = package.golden.images.front();
    Limits const* const exact = package.golden.limits_of("fp32");
    try {
        Output const output = network.run(golden.tensor, package.pictures.front());
        double const error = std::max(relative_error(golden.loc, output.loc),
                                      relative_error(golden.conf, output.conf));
        bool const is_exact = exact != nullptr && error <= exact->heads;
        return is_exact ? "fp32" : arithmetic_at_most(asked);
    } catch (std::exception const&) {  // the rows report it
        return arithmetic_at_most(asked);
    }
}

Checks::Check const Checks::checks[8] = {
    {"files", &Checks::files},
    {"preprocess", &Checks::preprocess},
    {"postprocess", &Checks::postprocess},
    {"priors", &Checks::priors},
    {"heads", &Checks::heads},
    {"boxes", &Checks::boxes},
    {"detection_out", &Checks::detection_out},
    {"times", &Checks::times},
};

Checks::Checks(Package const& package, Network const& network, Limits const& limits, int rounds)
    : package_(package),
      network_(network),
      limits_(limits),
      rounds_(rounds),
      from_golden_(package.golden.images.size()),
      from_picture_(package.golden.images.size()) {}

// What cannot even be compared has failed.
Row Checks::row_of(Check const& check) {
    Row row;
    try {
        row = (this->*check.run)();
    } catch (std::exception const& error) {
        row.status = Status::fail;
        row.text = error.what();
    }
    row.name = check.name;
    return row;
}

// A network with raw heads has neither priors nor detection_out.
Row Checks::row_without_tail() const {
    if (package_.golden.outputs == Outputs::detections) {
        return {"", Status::fail, "the network has no detection_out", {}};
    }
    return {"", Status::skipped, "the network ends in raw heads", {}};
}

Row Checks::files() {
    Row row;
    row.status = judged(package_.wrong.empty());
    for (std::string const& wrong : package_.wrong) {
        row.text += (row.text.empty() ? "" : "; ") + wrong;
    }
    if (package_.wrong.empty()) {
        row.text = std::to_string(package_.found.size()) + " files as they were packaged";
    }
    row.numbers = {{"wrong", static_cast<double>(package_.wrong.size())}};
    return row;
}

Row Checks::preprocess() {
    double worst = 0;
    for (std::size_t i = 0; i < package_.pictures.size(); ++i) {
        std::vector<float> const& golden = package_.golden.images[i].tensor;
        std::vector<float> const tensor = tensor_from(package_, package_.pictures[i]);
        std::size_t const plane = golden.size() / 3;
        for (std::size_t channel = 0; channel < 3; ++channel) {
            NumberDiff const diff =
                compare_numbers(golden.data() + channel * plane, plane,
                                tensor.data() + channel * (tensor.size() / 3), tensor.size() / 3);
            worst = std::max(worst, diff.worst * package_.golden.deviation[channel]);
        }
    }
    // a thousandth for the rounding of a difference of floats
    double const most = package_.golden.exact.levels;
    return {"", judged(worst <= most + 1e-3),
            "the input tensor is off by " + words(worst) + " grey levels (at most " + words(most) +
                ")",
            {{"levels", worst}, {"limit", most}}};
}

Row Checks::postprocess() {
    std::size_t expected = 0;
    std::size_t found = 0;
    std::size_t in_place = 0;
    for (GoldenImage const& golden : package_.golden.images) {
        std::vector<mbv3ssd_detection> const boxes =
            boxes_from(package_, golden.loc, golden.conf, golden.width, golden.height);
        expected += golden.own.boxes.size();
        found += boxes.size();
        in_place += boxes_in_place(golden.own.boxes, boxes, package_.golden.exact);
    }
    return {"", judged(expected > 0 && found == expected && in_place == expected),
            of(in_place, expected) + " boxes of the golden heads in their place, " +
                std::to_string(found) + " found",
            {{"expected", static_cast<double>(expected)},
             {"found", static_cast<double>(found)},
             {"in_place", static_cast<double>(in_place)}}};
}

Row Checks::priors() {
    if (!network_.is_whole()) {
        return row_without_tail();
    }
    std::vector<float> const expected = priorbox_from(package_.contract);
    std::vector<float> const& actual = output_of_golden(0).priorbox;
    NumberDiff const diff =
        compare_numbers(expected.data(), expected.size(), actual.data(), actual.size());
    Row row;
    row.status = judged(diff.worst <= limits_.priors);
    row.text = std::to_string(expected.size() / 8) + " priors and their variances, off by " +
               words(diff.worst) + " (at most " + words(limits_.priors) + ")";
    if (diff.not_finite != 0) {
        row.text = of(diff.not_finite, diff.count) + " numbers of the priors are NaN or infinite";
    }
    row.numbers = {{"worst", diff.worst},
                   {"limit", limits_.priors},
                   {"not_finite", static_cast<double>(diff.not_finite)}};
    return row;
}

Row Checks::heads() {
    NumberDiff loc;
    NumberDiff conf;
    for (std::size_t i = 0; i < package_.pictures.size(); ++i) {
        GoldenImage const& golden = package_.golden.images[i];
        Output const& output = output_of_golden(i);
        take_worse(loc, compare_numbers(golden.loc.data(), golden.loc.size(), output.loc.data(),
                                        output.loc.size()));
        take_worse(conf, compare_numbers(golden.conf.data(), golden.conf.size(),
                                         output.conf.data(), output.conf.size()));
    }
    Row row;
    row.status = judged(std::max(loc.relative, conf.relative) <= limits_.heads);
    row.text = "loc off by " + words(loc.relative) + ", conf by " + words(conf.relative) +
               " of their root mean square (at most " + words(limits_.heads) + ")";
    std::size_t const not_finite = loc.not_finite + conf.not_finite;
    if (not_finite != 0) {
        row.text = of(not_finite, loc.count + conf.count) + " raw heads are NaN or infinite";
    }
    row.numbers = {{"loc", loc.relative},
                   {"conf", conf.relative},
                   {"limit", limits_.heads},
                   {"not_finite", static_cast<double>(not_finite)}};
    return row;
}

Row Checks::boxes() {
    BoxDiff all;
    for (std::size_t i = 0; i < package_.pictures.size(); ++i) {
        Output const& output = output_of_picture(i);
        Picture const& picture = package_.pictures[i];
        std::vector<mbv3ssd_detection> const found =
            boxes_from(package_, output.loc, output.conf, picture.width, picture.height);
        take(all, compare_boxes(package_.golden.images[i].own, found, limits_));
    }
    return row_of_boxes(all, limits_);
}

Row Checks::detection_out() {
    if (!network_.is_whole()) {
        return row_without_tail();
    }
    BoxDiff all;
    for (std::size_t i = 0; i < package_.pictures.size(); ++i) {
        take(all, compare_boxes(package_.golden.images[i].detection_out,
                                output_of_picture(i).detection_out, limits_));
    }
    return row_of_boxes(all, limits_);
}

Row Checks::times() {
    if (rounds_ < 1) {
        return {"", Status::skipped, "--rounds is 0", {}};
    }
    Picture const& picture = package_.pictures[0];
    std::vector<float> const tensor = tensor_from(package_, picture);
    Output const& output = output_of_picture(0);
    network_.run_as_shipped(tensor);
    double const before =
        median_milliseconds(rounds_, [&] { static_cast<void>(tensor_from(package_, picture)); });
    double const net = median_milliseconds(rounds_, [&] { network_.run_as_shipped(tensor); });
    double const behind = median_milliseconds(rounds_, [&] {
        static_cast<void>(
            boxes_from(package_, output.loc, output.conf, picture.width, picture.height));
    });
    char text[160];
    static_cast<void>(std::snprintf(text, sizeof text,
                                    "preprocessing %.3g ms, network %.4g ms%s, post-processing of "
                                    "raw heads %.3g ms (median of %d)",
                                    before, net,
                                    network_.is_whole() ? " with detection_out" : "", behind,
                                    rounds_));
    return {"", Status::info, text,
            {{"preprocess_ms", before}, {"network_ms", net}, {"postprocess_ms", behind}}};
}

Output const& Checks::output_of_golden(std::size_t image) {
    std::optional<Output>& output = from_golden_[image];
    if (!output) {
        output = network_.run(package_.golden.images[image].tensor, package_.pictures[image]);
    }
    return *output;
}

// The same tensor gives the same output: it is not computed twice.
Output const& Checks::output_of_picture(std::size_t image) {
    std::vector<float> const tensor = tensor_from(package_, package_.pictures[image]);
    if (tensor == package_.golden.images[image].tensor) {
        return output_of_golden(image);
    }
    std::optional<Output>& output = from_picture_[image];
    if (!output) {
        output = network_.run(tensor, package_.pictures[image]);
    }
    return *output;
}

}  // namespace selftest
