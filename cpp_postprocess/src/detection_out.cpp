#include "mbv3ssd/detection_out.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "head_check.hpp"
#include "mbv3ssd/decode.hpp"

namespace mbv3ssd {

void read_detection_out(float const* rows, std::size_t count, std::size_t step,
                        std::size_t classes, Frame const& frame, std::vector<Detection>& found) {
    check_frame(frame);
    found.clear();
    if (count == 0) {
        return;
    }
    if (rows == nullptr || step < 6) {
        throw std::invalid_argument("detection_out must have rows of 6 numbers");
    }
    for (std::size_t i = 0; i < count; ++i) {
        float const* const row = rows + i * step;
        Box box{row[2], row[3], row[4], row[5]};
        if (!std::isfinite(row[0]) || !std::isfinite(row[1]) || !is_finite(box)) {
            continue;
        }
        if (row[0] < 1 || row[0] >= static_cast<float>(classes) || row[0] != std::floor(row[0])) {
            throw std::invalid_argument("row " + std::to_string(i) + " has the label " +
                                        std::to_string(row[0]) + ", which is not one of the " +
                                        std::to_string(classes) + " classes");
        }
        box = {box.x_min * frame.width, box.y_min * frame.height, box.x_max * frame.width,
               box.y_max * frame.height};
        if (frame.clip) {
            box = {std::min(std::max(box.x_min, 0.0F), frame.width),
                   std::min(std::max(box.y_min, 0.0F), frame.height),
                   std::min(std::max(box.x_max, 0.0F), frame.width),
                   std::min(std::max(box.y_max, 0.0F), frame.height)};
        }
        found.push_back({box, row[1], static_cast<std::int32_t>(row[0]), -1});
    }
}

}  // namespace mbv3ssd
