#include "head_check.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace mbv3ssd {
namespace {

void need(bool condition, char const* part, std::size_t index, char const* what) {
    if (!condition) {
        throw std::invalid_argument("head part " + std::to_string(index) + ": " + part + " " +
                                    what);
    }
}

// Throws unless `size` floats hold `planes` planes of `cells`, `step` apart.
void check_planes(char const* part, std::size_t index, std::size_t size, std::size_t step,
                  std::size_t planes, std::size_t cells) {
    need(step == 0 || step >= cells, part, index, "has planes that overlap: the step is too small");
    std::size_t const used = step == 0 ? cells : step;
    need(size >= cells && (size - cells) / used >= planes - 1, part, index,
         "has fewer numbers than boxes x cells of the level need");
}

}  // namespace

void check_frame(Frame const& frame) {
    bool const is_sized = frame.width > 0 && frame.height > 0 && std::isfinite(frame.width) &&
                          std::isfinite(frame.height);
    if (!is_sized) {
        throw std::invalid_argument("the image that boxes are scaled to has no pixels");
    }
}

void check_heads(Heads const& heads, std::vector<PriorLevel> const& levels, std::size_t classes) {
    std::size_t all = 0;
    for (PriorLevel const& level : levels) {
        all += level.count();
    }
    if (heads.parts == nullptr || (heads.part_count != 1 && heads.part_count != levels.size())) {
        throw std::invalid_argument("heads come in 1 part or in " +
                                    std::to_string(levels.size()) + ", one per level, not in " +
                                    std::to_string(heads.part_count));
    }
    for (std::size_t i = 0; i < heads.part_count; ++i) {
        HeadPart const& part = heads.parts[i];
        bool const is_level = heads.part_count == levels.size();
        std::size_t const count = is_level ? levels[i].count() : all;
        need(part.loc != nullptr, "loc", i, "is a null pointer");
        need(part.conf != nullptr, "conf", i, "is a null pointer");
        if (part.layout == HeadLayout::rows) {
            need(part.loc_size == count * 4, "loc", i, "is not 4 numbers for each prior");
            need(part.conf_size == count * classes, "conf", i,
                 "is not one number for each prior and class");
        } else {
            need(is_level, "planes", i, "need one part for each level");
            std::size_t const boxes = levels[i].boxes_per_cell();
            std::size_t const cells = levels[i].cells();
            check_planes("loc", i, part.loc_size, part.loc_plane_step, 4 * boxes, cells);
            check_planes("conf", i, part.conf_size, part.conf_plane_step, classes * boxes,
                         cells);
        }
    }
}

}  // namespace mbv3ssd
