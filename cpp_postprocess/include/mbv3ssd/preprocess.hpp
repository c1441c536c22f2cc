// From pixels to the network's input tensor, by the contract's rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mbv3ssd/contract.hpp"

namespace mbv3ssd {

enum class PixelFormat : std::uint32_t { rgb, bgr, rgba, bgra, grey, nv21 };

// Borrowed pixels, 8 bits a channel, the top row first. `stride` is the number of bytes from a row
// to the next; 0 means rows without padding. NV21 (Android's camera) has a plane of Y and then, at
// `chroma`, rows of V and U in turn, one pair for 2 x 2 pixels.
struct Image {
    unsigned char const* pixels = nullptr;
    std::uint32_t width = 0, height = 0;
    PixelFormat format = PixelFormat::rgb;
    std::size_t stride = 0;
    unsigned char const* chroma = nullptr;
    std::size_t chroma_stride = 0;
};

// Throws std::invalid_argument with what is wrong with `image`, if something is.
void check_image(Image const& image);

// Two old places and the second one's weight, for one new place.
struct Blend {
    std::uint32_t first, second;
    float weight;
    std::int32_t fixed_first, fixed_second;  // weights of 11 fractional bits
};

// A run of old places for one new place; its weights are stored from index `weights` on.
struct Taps {
    std::uint32_t first, count;
    std::size_t weights;
};

// Resizes and normalises. Its buffers grow to what an image needs and are then used again.
class Preprocessor {
   public:
    explicit Preprocessor(InputRule const& rule);

    // How many floats the tensor has: 3 x height x width.
    [[nodiscard]] std::size_t tensor_size() const;

    // Writes (3, height, width), planes in the contract's channel order: what
    // mbv3ssd_deploy/core/preprocess.py gives for the same pixels. Throws std::invalid_argument if
    // the image is unsound or `size` is not tensor_size().
    void run(Image const& image, float* tensor, std::size_t size);

   private:
    void prepare(std::uint32_t width, std::uint32_t height);
    void run_bilinear_u8(Image const& image, float* tensor);
    void run_bilinear_float(Image const& image, float* tensor);
    void run_antialias(Image const& image, float* tensor);
    void halve(Image const& image, float* tensor);
    void put_row(std::uint32_t row, unsigned char const* rgb, float* tensor) const;

    InputRule rule_;
    std::vector<float> levels_;  // (3, 256): each grey level, normalised
    float mean_[3]{}, deviation_[3]{};
    std::uint32_t old_width_ = 0, old_height_ = 0;

    std::vector<Blend> blend_x_, blend_y_;
    std::vector<Taps> taps_x_, taps_y_;
    std::vector<std::int32_t> weights_x_, weights_y_;
    std::vector<unsigned char> pixel_row_, result_row_, across_;
    std::vector<std::int32_t> fixed_rows_[2];
    std::vector<float> float_rows_[2];
};

}  // namespace mbv3ssd
