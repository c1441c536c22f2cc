#include "mbv3ssd/preprocess.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "pixels.hpp"
#include "resize_tables.hpp"

namespace mbv3ssd {

Preprocessor::Preprocessor(InputRule const& rule) : rule_(rule), levels_(std::size_t{3} * 256) {
    if (rule.width == 0 || rule.height == 0) {
        throw std::invalid_argument("the network's input has no pixels");
    }
    for (std::size_t c = 0; c < 3; ++c) {
        mean_[c] = static_cast<float>(rule.mean[c]);
        deviation_[c] = static_cast<float>(rule.deviation[c]);
        for (std::size_t level = 0; level < 256; ++level) {
            levels_[c * 256 + level] = (static_cast<float>(level) - mean_[c]) / deviation_[c];
        }
    }
}

std::size_t Preprocessor::tensor_size() const {
    return std::size_t{3} * rule_.height * rule_.width;
}

void Preprocessor::run(Image const& image, float* tensor, std::size_t size) {
    check_image(image);
    if (tensor == nullptr || size != tensor_size()) {
        throw std::invalid_argument("the tensor must have room for 3 x " +
                                    std::to_string(rule_.height) + " x " +
                                    std::to_string(rule_.width) + " floats");
    }
    if (image.width != old_width_ || image.height != old_height_) {
        old_width_ = old_height_ = 0;  // in case an allocation below fails
        prepare(image.width, image.height);
        old_width_ = image.width;
        old_height_ = image.height;
    }
    switch (rule_.resize) {
        case ResizeRule::cv2_u8:
            if (image.width == 2 * rule_.width && image.height == 2 * rule_.height) {
                halve(image, tensor);
            } else {
                run_bilinear_u8(image, tensor);
            }
            break;
        case ResizeRule::pil_u8_antialias:
            run_antialias(image, tensor);
            break;
        case ResizeRule::float_after_normalise:
            run_bilinear_float(image, tensor);
            break;
    }
}

void Preprocessor::prepare(std::uint32_t width, std::uint32_t height) {
    std::size_t const new_row = std::size_t{3} * rule_.width;
    pixel_row_.resize(std::size_t{6} * width);  // two rows, for `halve`
    result_row_.resize(new_row);
    switch (rule_.resize) {
        case ResizeRule::cv2_u8:
            blend_like_opencv(blend_x_, width, rule_.width, Axis::along_row);
            blend_like_opencv(blend_y_, height, rule_.height, Axis::along_column);
            fixed_rows_[0].resize(new_row);
            fixed_rows_[1].resize(new_row);
            break;
        case ResizeRule::pil_u8_antialias:
            tap_like_pillow(taps_x_, weights_x_, width, rule_.width);
            tap_like_pillow(taps_y_, weights_y_, height, rule_.height);
            across_.resize(new_row * height);
            break;
        case ResizeRule::float_after_normalise:
            blend_like_torch(blend_x_, width, rule_.width);
            blend_like_torch(blend_y_, height, rule_.height);
            float_rows_[0].resize(new_row);
            float_rows_[1].resize(new_row);
            break;
    }
}

// Writes a row of RGB pixels, normalised.
void Preprocessor::put_row(std::uint32_t row, unsigned char const* rgb, float* tensor) const {
    for (std::size_t c = 0; c < 3; ++c) {
        std::size_t const from = rule_.channel_order == ChannelOrder::rgb ? c : 2 - c;
        float const* const level = &levels_[c * 256];
        float* const to = tensor + (c * rule_.height + row) * rule_.width;
        for (std::size_t x = 0; x < rule_.width; ++x) {
            to[x] = level[rgb[3 * x + from]];
        }
    }
}

void Preprocessor::run_bilinear_u8(Image const& image, float* tensor) {
    std::uint32_t buffered[2] = {image.height, image.height};  // the old row in each buffer: none yet
    auto const across = [&](std::uint32_t row, std::size_t slot) {
        if (buffered[slot] == row) {
            return;
        }
        if (buffered[1 - slot] == row) {
            std::swap(buffered[0], buffered[1]);
            std::swap(fixed_rows_[0], fixed_rows_[1]);
            return;
        }
        buffered[slot] = row;
        unsigned char const* const rgb = rgb_row(image, row, pixel_row_.data());
        std::int32_t* to = fixed_rows_[slot].data();
        for (Blend const& blend : blend_x_) {
            for (std::size_t c = 0; c < 3; ++c) {
                *to++ = rgb[std::size_t{3} * blend.first + c] * blend.fixed_first +
                        rgb[std::size_t{3} * blend.second + c] * blend.fixed_second;
            }
        }
    };
    for (std::uint32_t y = 0; y < rule_.height; ++y) {
        Blend const& blend = blend_y_[y];
        across(blend.first, 0);
        if (blend.second != blend.first) {
            across(blend.second, 1);
        }
        std::int32_t const* const upper = fixed_rows_[0].data();
        std::int32_t const* const lower =
            fixed_rows_[blend.second != blend.first ? 1 : 0].data();
        for (std::size_t i = 0; i < result_row_.size(); ++i) {
            // OpenCV's own way to keep the products in 32 bits
            std::int32_t const mixed = ((blend.fixed_first * (upper[i] >> 4)) >> 16) +
                                       ((blend.fixed_second * (lower[i] >> 4)) >> 16);
            result_row_[i] = static_cast<unsigned char>(std::clamp((mixed + 2) >> 2, 0, 255));
        }
        put_row(y, result_row_.data(), tensor);
    }
}

// cv2.resize takes the mean of 2 x 2 pixels where both sides are exactly halved.
void Preprocessor::halve(Image const& image, float* tensor) {
    for (std::uint32_t y = 0; y < rule_.height; ++y) {
        unsigned char const* const upper = rgb_row(image, 2 * y, pixel_row_.data());
        unsigned char const* const lower =
            rgb_row(image, 2 * y + 1, pixel_row_.data() + std::size_t{3} * image.width);
        for (std::size_t x = 0; x < rule_.width; ++x) {
            for (std::size_t c = 0; c < 3; ++c) {
                int const total = upper[6 * x + c] + upper[6 * x + 3 + c] + lower[6 * x + c] +
                                  lower[6 * x + 3 + c];
                result_row_[3 * x + c] = static_cast<unsigned char>((total + 2) >> 2);
            }
        }
        put_row(y, result_row_.data(), tensor);
    }
}

void Preprocessor::run_bilinear_float(Image const& image, float* tensor) {
    std::uint32_t buffered[2] = {image.height, image.height};
    auto const across = [&](std::uint32_t row, std::size_t slot) {
        if (buffered[slot] == row) {
            return;
        }
        buffered[slot] = row;
        unsigned char const* const rgb = rgb_row(image, row, pixel_row_.data());
        std::size_t at = 0;
        for (Blend const& blend : blend_x_) {
            for (std::size_t c = 0; c < 3; ++c) {
                auto const left = static_cast<float>(rgb[std::size_t{3} * blend.first + c]);
                auto const right = static_cast<float>(rgb[std::size_t{3} * blend.second + c]);
                float_rows_[slot][at++] = left * (1.0F - blend.weight) + right * blend.weight;
            }
        }
    };
    for (std::uint32_t y = 0; y < rule_.height; ++y) {
        Blend const& blend = blend_y_[y];
        across(blend.first, 0);
        across(blend.second, 1);
        for (std::size_t c = 0; c < 3; ++c) {
            std::size_t const from = rule_.channel_order == ChannelOrder::rgb ? c : 2 - c;
            float* const to = tensor + (c * rule_.height + y) * rule_.width;
            for (std::size_t x = 0; x < rule_.width; ++x) {
                float const pixel = float_rows_[0][3 * x + from] * (1.0F - blend.weight) +
                                    float_rows_[1][3 * x + from] * blend.weight;
                to[x] = (pixel - mean_[c]) / deviation_[c];
            }
        }
    }
}

// First along the rows, then along the columns; each pass rounds to 8 bits, and one that does not
// change the size is left out.
void Preprocessor::run_antialias(Image const& image, float* tensor) {
    auto const rounded = [](std::int32_t total) {
        return static_cast<unsigned char>(std::clamp(total >> fraction_bits, 0, 255));
    };
    constexpr std::int32_t half = 1 << (fraction_bits - 1);
    std::size_t const new_row = result_row_.size();
    for (std::uint32_t row = 0; row < image.height; ++row) {
        unsigned char const* const rgb = rgb_row(image, row, pixel_row_.data());
        unsigned char* to = &across_[row * new_row];
        if (image.width == rule_.width) {
            std::copy(rgb, rgb + new_row, to);
            continue;
        }
        for (Taps const& taps : taps_x_) {
            std::int32_t total[3] = {half, half, half};
            for (std::size_t i = 0; i < taps.count; ++i) {
                for (std::size_t c = 0; c < 3; ++c) {
                    total[c] += rgb[3 * (taps.first + i) + c] * weights_x_[taps.weights + i];
                }
            }
            for (std::int32_t const one : total) {
                *to++ = rounded(one);
            }
        }
    }
    for (std::uint32_t y = 0; y < rule_.height; ++y) {
        if (image.height == rule_.height) {
            put_row(y, &across_[y * new_row], tensor);
            continue;
        }
        Taps const& taps = taps_y_[y];
        for (std::size_t x = 0; x < new_row; ++x) {
            std::int32_t total = half;
            for (std::size_t i = 0; i < taps.count; ++i) {
                total += across_[(taps.first + i) * new_row + x] * weights_y_[taps.weights + i];
            }
            result_row_[x] = rounded(total);
        }
        put_row(y, result_row_.data(), tensor);
    }
}

}  // namespace mbv3ssd
