// How far two results of the same network lie apart.
#pragma once

#include <cstddef>
#include <vector>

#include "golden.hpp"
#include "mbv3ssd/c_api.h"

namespace selftest {

// What came of holding one row of numbers against another.
struct NumberDiff {
    std::size_t count = 0, not_finite = 0;  // how many there are, and how many are NaN or infinite
    double worst = 0;     // the largest distance; infinite where a number is not finite
    double relative = 0;  // root mean square of the distance over that of the expected numbers
};

// Throws std::invalid_argument unless there are as many on both sides.
[[nodiscard]] NumberDiff compare_numbers(float const* expected, std::size_t expected_count,
                                         float const* actual, std::size_t actual_count);

// Lists of boxes, compared in both directions: a box counts if its score is above the cut by
// more than the margin, and is found again if the other list has one of its class whose overlap and
// score are near enough.
struct BoxDiff {
    std::size_t expected = 0, found_again = 0;  // of those that count in the expected list
    std::size_t actual = 0, known = 0;          // of those that count in the actual one
    double worst_score = 0;                     // of those found again
};

[[nodiscard]] BoxDiff compare_boxes(GoldenBoxes const& expected,
                                    std::vector<mbv3ssd_detection> const& actual,
                                    Limits const& limits);

// Returns how many of the expected boxes have, at their own place in the list, a box of the same
// class, score and corners. Boxes whose scores are equal within the limit may change places.
[[nodiscard]] std::size_t boxes_in_place(std::vector<GoldenBox> const& expected,
                                         std::vector<mbv3ssd_detection> const& actual,
                                         ExactLimits const& limits);

}  // namespace selftest
