#include "mbv3ssd/detection_out.hpp"

#include <stdexcept>
#include <string>

#include "check.hpp"

namespace {

// two rows, 8 floats apart
float const rows[] = {2, 0.5F, 0.25F, 0.5F, 1.5F, 1, -9, -9, 1, 0.25F, 0, 0, 1, 1};

}  // namespace

TEST_CASE("rows become clipped detections in pixels") {
    std::vector<mbv3ssd::Detection> found;

    mbv3ssd::read_detection_out(rows, 2, 8, 3, {100, 200, true}, found);
    REQUIRE(found.size() == 2);
    CHECK(found[0].label == 2);
    CHECK(found[1].score == 0.25F);
    CHECK(found[0].box.x_min == 25);
    CHECK(found[0].box.y_min == 100);
    CHECK(found[0].box.x_max == 100);

    mbv3ssd::read_detection_out(nullptr, 0, 0, 3, {}, found);
    CHECK(found.empty());
}

TEST_CASE("rows that do not fit are refused") {
    std::vector<mbv3ssd::Detection> found;
    CHECK_ERROR(std::invalid_argument, "label 2",
                mbv3ssd::read_detection_out(rows, 1, 8, 2, {}, found));
    CHECK_ERROR(std::invalid_argument, "rows of 6",
                mbv3ssd::read_detection_out(rows, 2, 5, 3, {}, found));
    CHECK_ERROR(std::invalid_argument, "rows of 6",
                mbv3ssd::read_detection_out(nullptr, 2, 6, 3, {}, found));
}
