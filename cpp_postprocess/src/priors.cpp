#include "mbv3ssd/priors.hpp"

#include <algorithm>
#include <cmath>

namespace mbv3ssd {
namespace {

// Centre form about the centre of a cell, in frame units.
struct WideBox {
    double x, y, width, height;
};

double clipped(double value) { return std::min(std::max(value, 0.0), 1.0); }

std::vector<WideBox> boxes_about_centre(PriorLevel const& level) {
    double const small = level.min_size;
    std::vector<WideBox> boxes{{0.0, 0.0, small, small}};
    if (level.max_size > 0) {
        double const between = std::sqrt(small * level.max_size);
        boxes.push_back({0.0, 0.0, between, between});
    }
    for (double const ratio : level.ratios) {
        boxes.push_back({0.0, 0.0, small * std::sqrt(ratio), small / std::sqrt(ratio)});
    }
    return boxes;
}

// mmdetection 1.x: the first and the last pixel inside a box of the first cell are whole numbers.
// std::rint rounds half to even, as numpy does.
void put_on_pixels(double centre, double& middle, double& length) {
    double const first = std::rint(middle + centre - length / 2);
    double const past = std::rint(middle + centre + length / 2 - 1) + 1;
    middle = (first + past) / 2 - centre;
    length = past - first;
}

// Clips the two corners of one axis.
void clip_corners(double& middle, double& length) {
    double const first = clipped(middle - length / 2);
    double const last = clipped(middle + length / 2);
    middle = (first + last) / 2;
    length = last - first;
}

void clip(WideBox& box, ClipRule rule) {
    switch (rule) {
        case ClipRule::none:
            break;
        case ClipRule::corners:
            clip_corners(box.x, box.width);
            clip_corners(box.y, box.height);
            break;
        case ClipRule::centre_form:
            box.x = clipped(box.x);
            box.y = clipped(box.y);
            box.width = clipped(box.width);
            box.height = clipped(box.height);
            break;
        case ClipRule::sizes:
            box.width = clipped(box.width);
            box.height = clipped(box.height);
            break;
    }
}

void append_level(std::vector<Prior>& priors, PriorLevel const& level, PriorTable const& table) {
    std::vector<WideBox> boxes = boxes_about_centre(level);
    if (table.rounding == PriorRounding::pixel_corners) {
        for (WideBox& box : boxes) {
            put_on_pixels(level.step_x / 2, box.x, box.width);
            put_on_pixels(level.step_y / 2, box.y, box.height);
        }
    }
    for (std::uint32_t row = 0; row < level.rows; ++row) {
        for (std::uint32_t col = 0; col < level.cols; ++col) {
            for (WideBox box : boxes) {
                box.x = (box.x + (col + 0.5) * level.step_x) / table.frame_width;
                box.y = (box.y + (row + 0.5) * level.step_y) / table.frame_height;
                box.width /= table.frame_width;
                box.height /= table.frame_height;
                clip(box, table.clip);
                priors.push_back({static_cast<float>(box.x), static_cast<float>(box.y),
                                  static_cast<float>(box.width), static_cast<float>(box.height)});
            }
        }
    }
}

}  // namespace

std::vector<Prior> build_priors(PriorTable const& table) {
    std::vector<Prior> priors;
    priors.reserve(table.count());
    for (PriorLevel const& level : table.levels) {
        append_level(priors, level, table);
    }
    return priors;
}

}  // namespace mbv3ssd
