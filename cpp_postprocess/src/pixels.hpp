// Rows of any pixel format as RGB.
#pragma once

#include "mbv3ssd/preprocess.hpp"

namespace mbv3ssd {

// Returns row `row` as interleaved RGB: the image's own pixels, or `room` (3 * width bytes) filled.
unsigned char const* rgb_row(Image const& image, std::uint32_t row, unsigned char* room);

}  // namespace mbv3ssd
