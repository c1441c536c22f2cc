#include "mbv3ssd/decode.hpp"

#include <cmath>

#include "exponent.hpp"

namespace mbv3ssd {
namespace {

// NaN stays NaN, as in numpy.
float limited(float value, float least, float most) {
    float const lowered = value > most ? most : value;
    return lowered < least ? least : lowered;
}

}  // namespace

BoxDecoder::BoxDecoder(BoxCoder const& coder)
    : centre_variance_(static_cast<float>(coder.centre_variance)),
      size_variance_(static_cast<float>(coder.size_variance)),
      max_log_size_(static_cast<float>(coder.max_log_size)),
      min_log_size_(static_cast<float>(coder.min_log_size)) {}

Box BoxDecoder::decode(float const* offsets, Prior const& prior) const {
    float const x = offsets[0] * centre_variance_ * prior.width + prior.x;
    float const y = offsets[1] * centre_variance_ * prior.height + prior.y;
    float const log_width = limited(offsets[2] * size_variance_, min_log_size_, max_log_size_);
    float const log_height = limited(offsets[3] * size_variance_, min_log_size_, max_log_size_);
    float const half_width = exponential(log_width) * prior.width / 2;
    float const half_height = exponential(log_height) * prior.height / 2;
    return {x - half_width, y - half_height, x + half_width, y + half_height};
}

bool is_finite(Box const& box) {
    return std::isfinite(box.x_min) && std::isfinite(box.y_min) && std::isfinite(box.x_max) &&
           std::isfinite(box.y_max);
}

}  // namespace mbv3ssd
