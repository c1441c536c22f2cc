#include "pixels.hpp"

#include <algorithm>
#include <stdexcept>

namespace mbv3ssd {
namespace {

constexpr std::uint32_t max_side = 1U << 15U;

std::size_t bytes_per_pixel(PixelFormat format) {
    switch (format) {
        case PixelFormat::rgb:
        case PixelFormat::bgr:
            return 3;
        case PixelFormat::rgba:
        case PixelFormat::bgra:
            return 4;
        case PixelFormat::grey:
        case PixelFormat::nv21:
            return 1;
    }
    throw std::invalid_argument("the pixel format is unknown");
}

std::size_t row_of_chroma(Image const& image) { return (std::size_t{image.width} + 1) / 2 * 2; }

unsigned char clamped(int value) {
    return static_cast<unsigned char>(std::min(std::max(value, 0), 255));
}

// ITU-R BT.601, limited range, in 20 fractional bits: as OpenCV's COLOR_YUV2RGB_NV21.
void rgb_from_nv21(unsigned char const* luma, unsigned char const* chroma, std::uint32_t width,
                   unsigned char* to) {
    constexpr int half = 1 << 19;
    for (std::size_t i = 0; i < width; ++i) {
        int const y = std::max(luma[i] - 16, 0) * 1220542;
        int const v = chroma[i / 2 * 2] - 128;
        int const u = chroma[i / 2 * 2 + 1] - 128;
        to[3 * i] = clamped((y + half + 1673527 * v) >> 20);
        to[3 * i + 1] = clamped((y + half - 852492 * v - 409993 * u) >> 20);
        to[3 * i + 2] = clamped((y + half + 2116026 * u) >> 20);
    }
}

void rgb_from_interleaved(unsigned char const* from, std::size_t step, bool blue_first,
                          std::uint32_t width, unsigned char* to) {
    std::size_t const red = blue_first ? 2 : 0;
    for (std::uint32_t i = 0; i < width; ++i, from += step, to += 3) {
        to[0] = from[red];
        to[1] = from[1];
        to[2] = from[2 - red];
    }
}

void rgb_from_grey(unsigned char const* from, std::uint32_t width, unsigned char* to) {
    for (std::size_t i = 0; i < width; ++i) {
        to[3 * i] = to[3 * i + 1] = to[3 * i + 2] = from[i];
    }
}

}  // namespace

void check_image(Image const& image) {
    std::size_t const pixel = bytes_per_pixel(image.format);
    if (image.pixels == nullptr) {
        throw std::invalid_argument("the image's pixels are a null pointer");
    }
    if (image.width == 0 || image.height == 0) {
        throw std::invalid_argument("the image has no pixels");
    }
    if (image.width > max_side || image.height > max_side) {
        throw std::invalid_argument("the image is larger than 32768 pixels along a side");
    }
    if (image.stride != 0 && image.stride < pixel * image.width) {
        throw std::invalid_argument("the image's stride is shorter than its rows");
    }
    if (image.format == PixelFormat::nv21) {
        if (image.chroma == nullptr) {
            throw std::invalid_argument("the NV21 image's chroma plane is a null pointer");
        }
        if (image.chroma_stride != 0 && image.chroma_stride < row_of_chroma(image)) {
            throw std::invalid_argument("the image's chroma stride is shorter than its rows");
        }
    }
}

unsigned char const* rgb_row(Image const& image, std::uint32_t row, unsigned char* room) {
    std::size_t const pixel = bytes_per_pixel(image.format);
    std::size_t const stride = image.stride == 0 ? pixel * image.width : image.stride;
    unsigned char const* const from = image.pixels + row * stride;
    switch (image.format) {
        case PixelFormat::rgb:
            return from;
        case PixelFormat::bgr:
        case PixelFormat::rgba:
        case PixelFormat::bgra:
            rgb_from_interleaved(from, pixel, image.format != PixelFormat::rgba, image.width, room);
            break;
        case PixelFormat::grey:
            rgb_from_grey(from, image.width, room);
            break;
        case PixelFormat::nv21: {
            std::size_t const step =
                image.chroma_stride == 0 ? row_of_chroma(image) : image.chroma_stride;
            rgb_from_nv21(from, image.chroma + row / 2 * step, image.width, room);
            break;
        }
    }
    return room;
}

}  // namespace mbv3ssd
