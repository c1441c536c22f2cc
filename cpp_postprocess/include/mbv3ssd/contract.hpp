// The contract of a model: how to prepare its input and decode its heads.
//
// `mbv3ssd-deploy contract` makes it from detector.json.
// docs/formats/contract.md describes the file; the rules are those of mbv3ssd_deploy/core/spec.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace mbv3ssd {

inline constexpr std::uint32_t contract_version = 1;

enum class ChannelOrder : std::uint32_t { rgb, bgr };
enum class ResizeRule : std::uint32_t { cv2_u8, pil_u8_antialias, float_after_normalise };
enum class ClipRule : std::uint32_t { none, corners, centre_form, sizes };
enum class PriorRounding : std::uint32_t { none, pixel_corners };
enum class ResultOrder : std::uint32_t { score, by_class, by_class_prior };
enum class BoxEdges : std::uint32_t { continuous, inclusive };
enum class NmsScope : std::uint32_t { by_class, all_classes };

// From pixels to the input tensor: resize, then (pixel - mean) / deviation for each channel.
struct InputRule {
    std::uint32_t width = 0, height = 0;  // of the network's input, in pixels
    ChannelOrder channel_order = ChannelOrder::rgb;
    ResizeRule resize = ResizeRule::cv2_u8;
    double mean[3] = {0, 0, 0};  // on 0..255 pixels, in channel_order
    double deviation[3] = {1, 1, 1};
};

// The boxes of one feature map: the same ones around the centre of each of its cells.
struct PriorLevel {
    std::uint32_t rows = 0, cols = 0;
    double step_x = 0, step_y = 0;  // from a cell's centre to the next, in units of the frame
    double min_size = 0;            // in units of the frame
    double max_size = 0;  // 0: the level has no second square
    std::vector<double> ratios;  // width / height of the other boxes of a cell

    [[nodiscard]] std::size_t boxes_per_cell() const {
        return 1U + (max_size > 0 ? 1U : 0U) + ratios.size();
    }
    [[nodiscard]] std::size_t cells() const { return std::size_t{rows} * cols; }
    [[nodiscard]] std::size_t count() const { return cells() * boxes_per_cell(); }
};

// All levels, finest first. Sizes and steps are divided by the frame, which gives 0..1.
struct PriorTable {
    double frame_width = 0, frame_height = 0;
    ClipRule clip = ClipRule::none;
    PriorRounding rounding = PriorRounding::none;
    std::vector<PriorLevel> levels;

    [[nodiscard]] std::size_t count() const {
        std::size_t total = 0;
        for (PriorLevel const& level : levels) {
            total += level.count();
        }
        return total;
    }
};

// How offsets become boxes: centre = prior + offset * variance * size of the prior,
// size = size of the prior * exp(offset * variance), the exponent clamped to the limits.
struct BoxCoder {
    double centre_variance = 0, size_variance = 0;
    double max_log_size = std::numeric_limits<double>::infinity();  // infinite: no limit
    double min_log_size = -std::numeric_limits<double>::infinity();
};

// Which boxes are kept, and their order.
struct DecodeRule {
    double score_threshold = 0, iou_threshold = 0;
    double iou_epsilon = 0;                  // added to the union, in normalised units
    std::uint32_t candidates_per_class = 0;  // into the NMS; 0: no limit, as in the next two
    std::uint32_t keep_per_class = 0;        // out of it
    std::uint32_t keep_total = 0;            // of all classes together
    bool clip_before_nms = false;
    bool suppress_at_threshold = false;  // an IoU equal to the threshold suppresses as well
    ResultOrder order = ResultOrder::score;
    BoxEdges box_edges = BoxEdges::continuous;
    NmsScope nms_scope = NmsScope::by_class;
};

struct Contract {
    std::string name, family;
    InputRule input;
    PriorTable priors;
    BoxCoder coder;
    DecodeRule decode;
    std::vector<std::string> class_names;  // background first
};

// The bytes are not a contract, or it contradicts itself.
class ContractError : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// The bytes are a contract of a version that this library does not read.
class ContractVersionError : public ContractError {
    using ContractError::ContractError;
};

// Returns the contract in the `size` bytes at `data`, checked. Throws ContractError.
[[nodiscard]] Contract parse_contract(void const* data, std::size_t size);

// Throws ContractError for the first impossible number in `contract`.
void check_contract(Contract const& contract);

}  // namespace mbv3ssd
