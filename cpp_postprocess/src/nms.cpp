#include "mbv3ssd/nms.hpp"

#include <algorithm>
#include <limits>

#include "lanes.hpp"

namespace mbv3ssd {
namespace {

float side(float first, float last) { return std::max(last - first, 0.0F); }

float area_of(Box const& box) { return side(box.x_min, box.x_max) * side(box.y_min, box.y_max); }

// Returns a bit for each lane whose IoU exceeds the threshold, or reaches it if `inclusive`.
unsigned iou_exceeds(Lanes inter, Lanes unions, OverlapRule const& rule) {
    Lanes const zero = Lanes::splat(0.0F);
    Lanes const limit = Lanes::splat(rule.threshold);
    Lanes const iou = inter / unions;
    // above 0 and below infinity, which NaN is not
    unsigned const has_iou = above(unions, zero) &
                             above(Lanes::splat(std::numeric_limits<float>::infinity()), unions);
    if (!rule.inclusive) {
        return has_iou & above(iou, limit);
    }
    unsigned const without = rule.threshold <= 0.0F ? ~has_iou : 0U;
    return without | (has_iou & at_or_above(iou, limit));
}

}  // namespace

void KeptBoxes::reserve(std::size_t lists, std::size_t boxes) {
    first_.assign(lists, none);
    last_.assign(lists, none);
    blocks_.reserve(boxes / block_size + std::min(lists, boxes) + 1);
}

void KeptBoxes::clear() {
    blocks_.clear();
    std::fill(first_.begin(), first_.end(), none);
    std::fill(last_.begin(), last_.end(), none);
}

bool KeptBoxes::suppresses(std::size_t list, Box const& box, OverlapRule const& rule) const {
    Lanes const zero = Lanes::splat(0.0F);
    Lanes const x_min = Lanes::splat(box.x_min);
    Lanes const y_min = Lanes::splat(box.y_min);
    Lanes const x_max = Lanes::splat(box.x_max);
    Lanes const y_max = Lanes::splat(box.y_max);
    Lanes const area = Lanes::splat(area_of(box));
    Lanes const epsilon = Lanes::splat(rule.epsilon);
    for (std::uint32_t at = first_[list]; at != none; at = blocks_[at].next) {
        Block const& block = blocks_[at];
        Lanes const across = min(Lanes::load(block.x_max.data()), x_max) -
                             max(Lanes::load(block.x_min.data()), x_min);
        Lanes const down = min(Lanes::load(block.y_max.data()), y_max) -
                           max(Lanes::load(block.y_min.data()), y_min);
        Lanes const inter = max(across, zero) * max(down, zero);
        Lanes const unions = Lanes::load(block.area.data()) + area - inter + epsilon;
        unsigned const filled = (1U << block.count) - 1U;
        if ((iou_exceeds(inter, unions, rule) & filled) != 0U) {
            return true;
        }
    }
    return false;
}

void KeptBoxes::add(std::size_t list, Box const& box) {
    if (last_[list] == none || blocks_[last_[list]].count == block_size) {
        auto const fresh = static_cast<std::uint32_t>(blocks_.size());
        blocks_.push_back(Block{{}, {}, {}, {}, {}, 0, none});
        if (last_[list] == none) {
            first_[list] = fresh;
        } else {
            blocks_[last_[list]].next = fresh;
        }
        last_[list] = fresh;
    }
    Block& block = blocks_[last_[list]];
    std::size_t const lane = block.count++;
    block.x_min[lane] = box.x_min;
    block.y_min[lane] = box.y_min;
    block.x_max[lane] = box.x_max;
    block.y_max[lane] = box.y_max;
    block.area[lane] = area_of(box);
}

}  // namespace mbv3ssd
