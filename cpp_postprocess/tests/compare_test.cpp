#include "compare.hpp"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "report.hpp"

namespace {

using selftest::BoxDiff;
using selftest::GoldenBoxes;
using selftest::NumberDiff;

selftest::Limits const limits{"fp32", 0, 0, 0.9, 1, 0.05, 0.02};
selftest::ExactLimits const exact{1, 1e-6, 1e-3};

std::vector<mbv3ssd_detection> as_found(std::vector<selftest::GoldenBox> const& boxes) {
    std::vector<mbv3ssd_detection> found;
    for (auto const& box : boxes) {
        found.push_back({box.x_min, box.y_min, box.x_max, box.y_max, box.score,
                         static_cast<std::int32_t>(box.label), 0});
    }
    return found;
}

}  // namespace

TEST_CASE("numbers: worst and relative error; NaN and infinity") {
    std::vector<float> const expected{3, 4, 0, 0};
    NumberDiff const near = selftest::compare_numbers(
        expected.data(), 4, std::vector<float>{3, 4, 0, 0.5F}.data(), 4);
    CHECK(near.worst == 0.5);
    CHECK(near.not_finite == 0);
    CHECK(near.count == 4);
    CHECK(std::fabs(near.relative - 0.1) < 1e-12);
    float const nan = std::numeric_limits<float>::quiet_NaN();
    NumberDiff const broken =
        selftest::compare_numbers(expected.data(), 4, std::vector<float>{3, nan, 0, 0}.data(), 4);
    CHECK(broken.not_finite == 1);
    CHECK(std::isinf(broken.worst));
    CHECK(std::isinf(broken.relative));
    std::vector<float> const none(2, 0.0F);
    CHECK(selftest::compare_numbers(none.data(), 2, none.data(), 2).relative == 0);
    CHECK(std::isinf(selftest::compare_numbers(none.data(), 2, expected.data(), 2).relative));
    CHECK_ERROR(std::invalid_argument, "3 numbers where 4 belong",
                selftest::compare_numbers(expected.data(), 4, expected.data(), 3));
}

TEST_CASE("boxes are matched by class, IoU and score") {
    GoldenBoxes const expected{
        0.1, {{1, 0.9F, 0, 0, 10, 10}, {2, 0.5F, 5, 5, 20, 20}, {1, 0.11F, 50, 50, 60, 60}}};
    BoxDiff const same = selftest::compare_boxes(expected, as_found(expected.boxes), limits);
    // the third lies too near to the cut to count
    CHECK(same.expected == 2);
    CHECK(same.found_again == 2);
    CHECK(same.actual == 2);
    CHECK(same.known == 2);
    CHECK(same.worst_score == 0);

    auto moved = expected.boxes;
    moved[0].x_max = 9.5F;  // overlaps by 0.95
    moved[0].score = 0.875F;
    moved[1].label = 1;
    BoxDiff const other = selftest::compare_boxes(expected, as_found(moved), limits);
    CHECK(other.found_again == 1);
    CHECK(other.known == 1);
    CHECK(std::fabs(other.worst_score - 0.025) < 1e-6);

    auto doubtful = expected.boxes;
    doubtful[0].score = 0.8F;
    CHECK(selftest::compare_boxes(expected, as_found(doubtful), limits).found_again == 1);
    BoxDiff const none = selftest::compare_boxes(expected, {}, limits);
    CHECK(none.expected == 2);
    CHECK(none.found_again == 0);
    CHECK(none.actual == 0);
    auto more = expected.boxes;
    more.push_back({2, 0.7F, 90, 90, 99, 99});
    BoxDiff const spurious = selftest::compare_boxes(expected, as_found(more), limits);
    CHECK(spurious.found_again == 2);
    CHECK(spurious.actual == 3);
    CHECK(spurious.known == 2);
}

TEST_CASE("exact lists may differ in the order of ties only") {
    std::vector<selftest::GoldenBox> const expected{
        {1, 0.9F, 0, 0, 10, 10}, {2, 0.5F, 5, 5, 20, 20}, {3, 0.5F, 0, 0, 9, 9}};
    CHECK(selftest::boxes_in_place(expected, as_found(expected), exact) == 3);
    auto tied = expected;
    std::swap(tied[1], tied[2]);
    CHECK(selftest::boxes_in_place(expected, as_found(tied), exact) == 3);
    auto wrong = expected;
    std::swap(wrong[0], wrong[1]);
    CHECK(selftest::boxes_in_place(expected, as_found(wrong), exact) == 1);
    auto twice = tied;
    twice[2] = twice[1];
    CHECK(selftest::boxes_in_place(expected, as_found(twice), exact) == 2);
    auto off = expected;
    off[0].y_max += 0.01F;
    CHECK(selftest::boxes_in_place(expected, as_found(off), exact) == 2);
    CHECK(selftest::boxes_in_place(expected, {}, exact) == 0);
}

TEST_CASE("a report passes if a check passed and none failed") {
    selftest::Report report;
    CHECK(!report.passed());  // nothing was proven
    report.rows = {{"a", selftest::Status::skipped, "", {}}};
    CHECK(!report.passed());
    report.rows.push_back({"b", selftest::Status::pass, "", {}});
    CHECK(report.passed());
    report.rows.push_back({"c", selftest::Status::fail, "a \"quoted\"\nline \\",
                           {{"x", std::numeric_limits<double>::infinity()}, {"y", 0.5}}});
    CHECK(!report.passed());
    std::string const json = json_from(report);
    CHECK(json.find("\"verdict\": \"FAIL\"") != std::string::npos);
    CHECK(json.find("a \\\"quoted\\\"\\u000aline \\\\") != std::string::npos);
    CHECK(json.find("{\"x\": \"inf\", \"y\": 0.5}") != std::string::npos);
}
