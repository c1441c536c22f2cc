#include "mbv3ssd/nms.hpp"

#include <limits>

#include "check.hpp"
#include "random.hpp"

namespace {

using mbv3ssd::Box;
using mbv3ssd::KeptBoxes;
using mbv3ssd::OverlapRule;

bool hides(Box const& kept, Box const& box, OverlapRule const& rule) {
    KeptBoxes boxes;
    boxes.reserve(1, 1);
    boxes.add(0, kept);
    return boxes.hides(0, box, rule);
}

}  // namespace

int main() {
    Box const left{0, 0, 2, 1};
    Box const right{1, 0, 3, 1};  // IoU 1/3 with `left`
    CHECK(hides(left, right, {0.33F, 0, false}));
    CHECK(!hides(left, right, {0.34F, 0, false}));
    CHECK(!hides(left, right, {0.33F, 1, false}));  // 1 / (3 + 1)

    // an IoU of exactly 1/2
    Box const half{0, 0, 1, 1};
    CHECK(!hides(left, half, {0.5F, 0, false}));
    CHECK(hides(left, half, {0.5F, 0, true}));

    // boxes without area have an IoU of 0, and so have those apart
    Box const point{1, 1, 1, 1};
    CHECK(!hides(point, point, {0.0F, 0, false}));
    CHECK(hides(point, point, {0.0F, 0, true}));
    CHECK(!hides(left, {5, 5, 6, 6}, {0.0F, 0, false}));
    CHECK(hides(left, {5, 5, 6, 6}, {0.0F, 0, true}));
    Box const turned{2, 1, 0, 0};
    CHECK(!hides(left, turned, {0.1F, 0, false}));
    float const huge = std::numeric_limits<float>::max();
    CHECK(!hides({-huge, -huge, huge, huge}, {-huge, -huge, huge, huge}, {0.5F, 0, false}));

    // lists are apart, and any number of boxes fits into a list
    KeptBoxes boxes;
    boxes.reserve(2, 100);
    OverlapRule const rule{0.5F, 0, false};
    for (int i = 0; i < 50; ++i) {
        auto const x = static_cast<float>(i);
        Box const box{x, 0, x + 0.9F, 1};
        CHECK(!boxes.hides(0, box, rule));
        boxes.add(0, box);
        CHECK(boxes.hides(0, box, rule));
        CHECK(!boxes.hides(1, box, rule));
    }
    boxes.clear();
    CHECK(!boxes.hides(0, {0, 0, 0.9F, 1}, rule));
}
