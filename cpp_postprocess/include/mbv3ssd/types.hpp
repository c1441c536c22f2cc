// The words this library speaks in: a box, a prior, a detection, the frame that they are scaled to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mbv3ssd {

// Corners, in the unit that the function documents: [0, 1] of the image, or pixels.
struct Box {
    float x_min, y_min, x_max, y_max;
};

// A prior (default box): centre and size in [0, 1] units of the image.
struct Prior {
    float x, y, width, height;
};

struct Detection {
    Box box;      // in the unit of the Frame: pixels of the image, as a rule
    float score;  // 0..1
    std::int32_t label;  // 0 is the background, and never appears here
    std::int32_t prior;  // the prior it was made of; -1 where a network gave it ready
};

// What the normalised boxes are scaled to: 1 x 1 leaves them as they are.
struct Frame {
    float width = 1.0F;
    float height = 1.0F;
    bool clip = false;  // cut boxes at the edges of the image
};

}  // namespace mbv3ssd
