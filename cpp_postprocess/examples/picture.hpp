// Pictures as binary PPM ("P6", 8 bits), so that the examples need no image library.
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "mbv3ssd/c_api.h"

struct Picture {
    std::uint32_t width = 0, height = 0;
    std::vector<std::uint8_t> pixels;  // RGB, rows without padding

    [[nodiscard]] mbv3ssd_image view() const {
        return {pixels.data(), width, height, MBV3SSD_RGB, 0, nullptr, 0};
    }
};

// Throws std::runtime_error.
inline Picture read_picture(std::string const& path) {
    std::uint32_t const most = 1U << 14U;
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    std::uint32_t highest = 0;
    Picture picture;
    file >> kind;
    while ((file >> std::ws).peek() == '#') {
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    file >> picture.width >> picture.height >> highest;
    file.get();
    if (!file || kind != "P6" || highest != 255 || picture.width == 0 || picture.height == 0 ||
        picture.width > most || picture.height > most) {
        throw std::runtime_error(path + " is not a binary PPM picture of 8 bits");
    }
    picture.pixels.resize(std::size_t{picture.width} * picture.height * 3);
    file.read(reinterpret_cast<char*>(picture.pixels.data()),
              static_cast<std::streamsize>(picture.pixels.size()));
    if (!file) {
        throw std::runtime_error(path + " is cut off");
    }
    return picture;
}
