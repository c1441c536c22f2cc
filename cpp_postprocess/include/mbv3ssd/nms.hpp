// Greedy non-maximum suppression: the kept boxes, and whether they suppress the next one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

// When one box suppresses another. IoU = inter / (union + epsilon), in float; it is 0 if the union
// is 0 or too large for float. `inclusive`: an IoU equal to the threshold suppresses as well.
struct OverlapRule {
    float threshold;
    float epsilon;
    bool inclusive;
};

// Kept boxes in lists, usually one per class. Boxes are tested eight at a time.
class KeptBoxes {
   public:
    // Reserves memory for `boxes` boxes in `lists` lists, so that `add` allocates nothing.
    void reserve(std::size_t lists, std::size_t boxes);

    // Removes all boxes and keeps the memory.
    void clear();

    // Whether a box of `list` suppresses `box`.
    [[nodiscard]] bool suppresses(std::size_t list, Box const& box, OverlapRule const& rule) const;

    // Adds `box` to `list`.
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
