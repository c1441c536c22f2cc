#include "mbv3ssd/nms.hpp"

#include <limits>

#include "check.hpp"
#include "random.hpp"

namespace {

using mbv3ssd::Box;
using mbv3ssd::KeptBoxes;
using mbv3ssd::OverlapRule;

bool suppresses(Box const& kept, Box const& box, OverlapRule const& rule) {
    KeptBoxes boxes;
    boxes.reserve(1, 1);
    boxes.add(0, kept);
    return boxes.suppresses(0, box, rule);
}

Box const left{0, 0, 2, 1};

}  // namespace

TEST_CASE("a box is suppressed by its IoU") {
    Box const right{1, 0, 3, 1};  // IoU 1/3 with `left`
    CHECK(suppresses(left, right, {0.33F, 0, false}));
    CHECK(!suppresses(left, right, {0.34F, 0, false}));
    CHECK(!suppresses(left, right, {0.33F, 1, false}));  // 1 / (3 + 1)

    // an IoU of exactly 1/2
    Box const half{0, 0, 1, 1};
    CHECK(!suppresses(left, half, {0.5F, 0, false}));
    CHECK(suppresses(left, half, {0.5F, 0, true}));
}

TEST_CASE("boxes without area, and disjoint ones, have an IoU of 0") {
    Box const point{1, 1, 1, 1};
    CHECK(!suppresses(point, point, {0.0F, 0, false}));
    CHECK(suppresses(point, point, {0.0F, 0, true}));
    CHECK(!suppresses(left, {5, 5, 6, 6}, {0.0F, 0, false}));
    CHECK(suppresses(left, {5, 5, 6, 6}, {0.0F, 0, true}));
    Box const turned{2, 1, 0, 0};
    CHECK(!suppresses(left, turned, {0.1F, 0, false}));
    float const huge = std::numeric_limits<float>::max();
    CHECK(!suppresses({-huge, -huge, huge, huge}, {-huge, -huge, huge, huge}, {0.5F, 0, false}));
}

TEST_CASE("lists are independent and hold any number of boxes") {
    KeptBoxes boxes;
    boxes.reserve(2, 100);
    OverlapRule const rule{0.5F, 0, false};
    for (int i = 0; i < 50; ++i) {
        auto const x = static_cast<float>(i);
        Box const box{x, 0, x + 0.9F, 1};
        CHECK(!boxes.suppresses(0, box, rule));
        boxes.add(0, box);
        CHECK(boxes.suppresses(0, box, rule));
        CHECK(!boxes.suppresses(1, box, rule));
    }
    boxes.clear();
    CHECK(!boxes.suppresses(0, {0, 0, 0.9F, 1}, rule));
}
