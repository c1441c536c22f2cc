// Source pixels and weights of each new pixel, for the three resize rules (core/resize.py).
#pragma once

#include <cstdint>
#include <vector>

#include "mbv3ssd/preprocess.hpp"

namespace mbv3ssd {

inline constexpr int fraction_bits = 22;  // of the weights of Pillow's filters on 8-bit pixels

enum class Axis { along_row, along_column };

// The places and weights of cv2.resize, INTER_LINEAR: positions in double, weights in float. Along a
// row the edge pixel has weight 1; along a column both rows are the edge row.
void blend_like_opencv(std::vector<Blend>& blends, std::uint32_t old_size, std::uint32_t new_size,
                       Axis axis);

// Those of torch's bilinear interpolate, align_corners=False.
void blend_like_torch(std::vector<Blend>& blends, std::uint32_t old_size, std::uint32_t new_size);

// Pillow's triangle filter, as wide as the reduction.
void tap_like_pillow(std::vector<Taps>& taps, std::vector<std::int32_t>& weights,
                     std::uint32_t old_size, std::uint32_t new_size);

}  // namespace mbv3ssd
