// Greedy non-maximum suppression: the boxes that were kept, and whether they hide a next one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

// When two boxes are too much alike. IoU = inter / (union + epsilon), in float; where the union is
// 0 or too large for float, it is 0. `inclusive`: an IoU that equals the threshold hides, too.
struct OverlapRule {
    float threshold;
    float epsilon;
    bool inclusive;
};

// Kept boxes, list by list (one a class, as a rule). Boxes are tested eight at a time.
class KeptBoxes {
   public:
    // Makes room for `boxes` boxes in `lists` lists, so that `add` allocates nothing.
    void reserve(std::size_t lists, std::size_t boxes);

    // Forgets all boxes, not the room.
    void clear();

    // Whether a box of `list` overlaps `box` too much.
    [[nodiscard]] bool hides(std::size_t list, Box const& box, OverlapRule const& rule) const;

    // Keeps `box` in `list`.
    void add(std::size_t list, Box const& box);

   private:
    static constexpr std::size_t block_size = 8;
    static constexpr std::uint32_t none = 0xFFFFFFFFU;

    struct Block {
        std::array<float, block_size> x_min, y_min, x_max, y_max, area;
        std::uint32_t count;
        std::uint32_t next;
    };

    std::vector<Block> blocks_;
    std::vector<std::uint32_t> first_, last_;  // list -> block
};

}  // namespace mbv3ssd
