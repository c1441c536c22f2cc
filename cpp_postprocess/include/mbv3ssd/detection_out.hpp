// What ncnn's DetectionOutput layer gives, as detections.
#pragma once

#include <cstddef>
#include <vector>

#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

// Fills `found` with `count` rows of six floats, `step` floats apart: label, score, x1, y1, x2, y2,
// normalised. The blob is empty when nothing was found: then `rows` may be null. A row with a
// number that is not finite is dropped. `classes` counts the background. Boxes are scaled to
// `frame`.
//
// Throws std::invalid_argument if `step` is below 6, if the frame has no size, or if a row's label
// is not below `classes`: the blob is of another model, or another blob.
void read_detection_out(float const* rows, std::size_t count, std::size_t step,
                        std::size_t classes, Frame const& frame, std::vector<Detection>& found);

}  // namespace mbv3ssd
