#include "compare.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

namespace selftest {
namespace {

GoldenBox box_from(mbv3ssd_detection const& one) {
    return {static_cast<std::uint32_t>(one.label),
            one.score,
            one.x_min,
            one.y_min,
            one.x_max,
            one.y_max};
}

double area(GoldenBox const& box) {
    return std::max(0.0, static_cast<double>(box.x_max) - static_cast<double>(box.x_min)) *
           std::max(0.0, static_cast<double>(box.y_max) - static_cast<double>(box.y_min));
}

double overlap(GoldenBox const& a, GoldenBox const& b) {
    GoldenBox const both{0,
                         0,
                         std::max(a.x_min, b.x_min),
                         std::max(a.y_min, b.y_min),
                         std::min(a.x_max, b.x_max),
                         std::min(a.y_max, b.y_max)};
    double const shared = area(both);
    double const either = area(a) + area(b) - shared;
    return either > 0 ? shared / either : 0;
}

double distance(float a, float b) {
    return std::fabs(static_cast<double>(a) - static_cast<double>(b));
}

// Returns how far off the score of the best match of `box` is; below 0 where there is none.
double matched(GoldenBox const& box, std::vector<GoldenBox> const& others, Limits const& limits) {
    double nearest = -1;
    for (GoldenBox const& other : others) {
        double const off = distance(box.score, other.score);
        bool const same = box.label == other.label && off <= limits.box_score &&
                          overlap(box, other) >= limits.box_iou;
        if (same && (nearest < 0 || off < nearest)) {
            nearest = off;
        }
    }
    return nearest;
}

bool same(GoldenBox const& a, GoldenBox const& b, ExactLimits const& limits) {
    return a.label == b.label && distance(a.score, b.score) <= limits.score &&
           distance(a.x_min, b.x_min) <= limits.pixels &&
           distance(a.y_min, b.y_min) <= limits.pixels &&
           distance(a.x_max, b.x_max) <= limits.pixels &&
           distance(a.y_max, b.y_max) <= limits.pixels;
}

}  // namespace

NumberDiff compare_numbers(float const* expected, std::size_t expected_count, float const* actual,
                           std::size_t actual_count) {
    if (expected_count != actual_count) {
        throw std::invalid_argument("there are " + std::to_string(actual_count) +
                                    " numbers where " + std::to_string(expected_count) +
                                    " belong");
    }
    NumberDiff diff;
    diff.count = expected_count;
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < expected_count; ++i) {
        auto const wanted = static_cast<double>(expected[i]);
        double const off = static_cast<double>(actual[i]) - wanted;
        if (!std::isfinite(off)) {
            ++diff.not_finite;
            continue;
        }
        diff.worst = std::max(diff.worst, std::fabs(off));
        error += off * off;
        size += wanted * wanted;
    }
    diff.relative = error > 0 ? std::sqrt(error / size) : 0;  // infinite where all should be 0
    if (diff.not_finite != 0) {
        diff.worst = std::numeric_limits<double>::infinity();
        diff.relative = diff.worst;
    }
    return diff;
}

BoxDiff compare_boxes(GoldenBoxes const& expected, std::vector<mbv3ssd_detection> const& actual,
                      Limits const& limits) {
    std::vector<GoldenBox> found;
    found.reserve(actual.size());
    std::transform(actual.begin(), actual.end(), std::back_inserter(found), box_from);
    double const counts_above = expected.cut + limits.margin;
    BoxDiff diff;
    for (GoldenBox const& box : expected.boxes) {
        if (static_cast<double>(box.score) <= counts_above) {
            continue;
        }
        ++diff.expected;
        double const off = matched(box, found, limits);
        diff.found_again += off >= 0 ? 1U : 0U;
        diff.worst_score = std::max(diff.worst_score, off);
    }
    for (GoldenBox const& box : found) {
        if (static_cast<double>(box.score) <= counts_above) {
            continue;
        }
        ++diff.actual;
        diff.known += matched(box, expected.boxes, limits) >= 0 ? 1U : 0U;
    }
    return diff;
}

std::size_t boxes_in_place(std::vector<GoldenBox> const& expected,
                           std::vector<mbv3ssd_detection> const& actual,
                           ExactLimits const& limits) {
    std::vector<bool> used(actual.size(), false);
    std::size_t in_place = 0;
    for (std::size_t place = 0; place < std::min(expected.size(), actual.size()); ++place) {
        // the run of equal scores around this place
        auto const ties = [&](std::size_t i) {
            return distance(actual[i].score, expected[place].score) <= limits.score;
        };
        if (!ties(place)) {
            continue;
        }
        std::size_t first = place;
        std::size_t last = place;
        while (first > 0 && ties(first - 1)) {
            --first;
        }
        while (last + 1 < actual.size() && ties(last + 1)) {
            ++last;
        }
        for (std::size_t i = first; i <= last; ++i) {
            if (!used[i] && same(expected[place], box_from(actual[i]), limits)) {
                used[i] = true;
                ++in_place;
                break;
            }
        }
    }
    return in_place;
}

}  // namespace selftest
