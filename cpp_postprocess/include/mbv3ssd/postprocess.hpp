// From the raw heads of any engine to detections, by the family's own rules.
//
// The list and its order are those of mbv3ssd_deploy/core/detections.py: the order of the contract,
// ties by prior, then by label. A score or a box that is not finite is dropped before sorting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mbv3ssd/contract.hpp"
#include "mbv3ssd/decode.hpp"
#include "mbv3ssd/nms.hpp"
#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

enum class HeadLayout : std::uint32_t {
    rows,    // (priors, 4) and (priors, classes), dense
    planes,  // (4 A, rows, cols) and (classes A, rows, cols) for A boxes a cell: ncnn, NCHW;
             // planes 4 * box + i and classes * box + label
};

// The numbers of one level; or, in rows, of all levels behind each other. Borrowed.
struct HeadPart {
    float const* loc = nullptr;
    float const* conf = nullptr;
    std::size_t loc_size = 0;  // how many floats may be read from `loc`; exact in rows
    std::size_t conf_size = 0;
    HeadLayout layout = HeadLayout::rows;
    std::size_t loc_plane_step = 0;  // floats from a plane to the next; 0: they are dense
    std::size_t conf_plane_step = 0;
};

// Whether the softmax is still to come.
enum class ConfForm : std::uint32_t { logits, probabilities };
enum class LocForm : std::uint32_t { offsets, corners };  // corners: boxes decoded, normalised

// What a network gave for one image.
struct Heads {
    HeadPart const* parts = nullptr;
    std::size_t part_count = 0;  // 1 in rows, or as many as there are levels
    ConfForm conf = ConfForm::logits;
    LocForm loc = LocForm::offsets;
};

// Which instructions this library was built for: 2 is AVX2, 1 SSE2 or NEON, 0 plain C++.
[[nodiscard]] int lanes();

// Turns heads into detections. All memory is allocated when it is made. One for each thread.
class Postprocessor {
   public:
    // Throws ContractError if the contract contradicts itself.
    explicit Postprocessor(Contract const& contract);

    [[nodiscard]] std::vector<Prior> const& priors() const { return priors_; }

    // Uses these priors instead of the contract's. Throws std::invalid_argument unless they are as
    // many.
    void set_priors(Prior const* priors, std::size_t count);

    // Instead of the contract's. Throws std::invalid_argument unless both lie within 0..1.
    void set_thresholds(double score, double iou);

    // How many detections an image can have.
    [[nodiscard]] std::size_t capacity() const { return found_.capacity(); }

    // Returns the detections, scaled to `frame`; they stay valid until the next call.
    // Throws std::invalid_argument where sizes do not belong together.
    std::vector<Detection> const& run(Heads const& heads, Frame const& frame);

   private:
    void find_candidates(Heads const& heads);
    [[nodiscard]] Box box_of(Heads const& heads, std::uint32_t prior);
    [[nodiscard]] Box compute_box(Heads const& heads, std::uint32_t prior) const;
    void drop_beyond_class_limit(Heads const& heads);
    void spread_classes(Heads const& heads);
    void select(Heads const& heads);
    void put_in_order();
    void scale(Frame const& frame);

    DecodeRule rule_;
    BoxDecoder decoder_;
    std::vector<PriorLevel> levels_;
    std::vector<Prior> priors_;
    std::size_t class_count_;
    float input_width_, input_height_;
    float last_pixel_x_, last_pixel_y_;  // how far the last pixel lies before the end of a box
    float class_distance_ = 0.0F;

    std::vector<std::uint64_t> candidates_;  // score, prior, label in one number; ascending is best
    std::vector<float> row_;
    std::vector<Box> boxes_;  // by prior; valid where `box_epoch_` is `epoch_`
    std::vector<std::uint32_t> box_epoch_;
    std::uint32_t epoch_ = 0;
    std::vector<std::uint32_t> seen_, kept_;  // by label
    KeptBoxes kept_boxes_;
    std::vector<Detection> found_;
};

}  // namespace mbv3ssd
