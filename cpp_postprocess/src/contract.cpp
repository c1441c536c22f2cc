#include "mbv3ssd/contract.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "byte_reader.hpp"

namespace mbv3ssd {
namespace {

constexpr char magic[8] = {'M', 'B', 'V', '3', 'S', 'S', 'D', 'C'};
constexpr std::size_t header_size = 20;

// Limits, so that a hostile file cannot ask for all memory.
constexpr std::uint32_t max_side = 16384;
constexpr std::size_t max_pixels = 1U << 26U;
constexpr std::size_t max_scores = 1U << 24U;

void need(bool condition, char const* sentence) {
    if (!condition) {
        throw ContractError(sentence);
    }
}

using Reader = ByteReader<ContractError>;
constexpr char cut_off[] = "the contract is cut off";

template <class Enum>
Enum one_of(Reader& reader, Enum last, char const* sentence) {
    std::uint32_t const code = reader.whole();
    need(code <= static_cast<std::uint32_t>(last), sentence);
    return static_cast<Enum>(code);
}

bool yes_or_no(Reader& reader) {
    std::uint32_t const code = reader.whole();
    need(code <= 1, "the contract has a flag that is neither 0 nor 1");
    return code == 1;
}

InputRule read_input(Reader& reader) {
    InputRule input;
    input.width = reader.whole();
    input.height = reader.whole();
    input.channel_order =
        one_of(reader, ChannelOrder::bgr, "the contract has an unknown order of channels");
    input.resize = one_of(reader, ResizeRule::float_after_normalise,
                          "the contract has an unknown resize rule");
    for (double& mean : input.mean) {
        mean = reader.real();
    }
    for (double& deviation : input.deviation) {
        deviation = reader.real();
    }
    return input;
}

PriorLevel read_level(Reader& reader) {
    PriorLevel level;
    level.rows = reader.whole();
    level.cols = reader.whole();
    level.step_x = reader.real();
    level.step_y = reader.real();
    level.min_size = reader.real();
    level.max_size = reader.real();
    level.ratios.resize(reader.count(sizeof(double)));
    for (double& ratio : level.ratios) {
        ratio = reader.real();
    }
    return level;
}

PriorTable read_priors(Reader& reader) {
    PriorTable priors;
    priors.frame_width = reader.real();
    priors.frame_height = reader.real();
    priors.clip = one_of(reader, ClipRule::sizes, "the contract has an unknown clip rule");
    priors.rounding = one_of(reader, PriorRounding::pixel_corners,
                             "the contract has an unknown rounding rule");
    std::size_t const levels = reader.count(44);
    for (std::size_t i = 0; i < levels; ++i) {
        priors.levels.push_back(read_level(reader));
    }
    return priors;
}

BoxCoder read_coder(Reader& reader) {
    BoxCoder coder;
    coder.centre_variance = reader.real();
    coder.size_variance = reader.real();
    coder.min_log_size = reader.real();
    coder.max_log_size = reader.real();
    return coder;
}

DecodeRule read_decode(Reader& reader) {
    DecodeRule rule;
    rule.score_threshold = reader.real();
    rule.iou_threshold = reader.real();
    rule.iou_epsilon = reader.real();
    rule.candidates_per_class = reader.whole();
    rule.keep_per_class = reader.whole();
    rule.keep_total = reader.whole();
    rule.clip_before_nms = yes_or_no(reader);
    rule.suppress_at_threshold = yes_or_no(reader);
    rule.order = one_of(reader, ResultOrder::by_class_prior,
                        "the contract has an unknown order of results");
    rule.box_edges =
        one_of(reader, BoxEdges::inclusive, "the contract has an unknown rule of box edges");
    rule.nms_scope =
        one_of(reader, NmsScope::all_classes, "the contract has an unknown scope of NMS");
    return rule;
}

bool within_0_1(double value) { return value >= 0.0 && value <= 1.0; }

bool positive(double value) { return std::isfinite(value) && value > 0; }

void check_input(InputRule const& input) {
    need(input.width > 0 && input.height > 0, "the contract's input has no pixels");
    need(input.width <= max_side && input.height <= max_side &&
             std::size_t{input.width} * input.height <= max_pixels,
         "the contract's input is too large");
    for (int i = 0; i < 3; ++i) {
        need(std::isfinite(static_cast<float>(input.mean[i])),
             "the contract's mean is not a number");
        need(positive(input.deviation[i]) && positive(static_cast<float>(input.deviation[i])),
             "the contract's standard deviation must be finite and above 0");
    }
}

void check_priors(PriorTable const& priors, std::size_t classes) {
    need(positive(priors.frame_width) && positive(priors.frame_height),
         "the contract's prior frame must be finite and larger than 0");
    need(!priors.levels.empty(), "the contract has no level of priors");
    std::size_t scores = 0;
    for (PriorLevel const& level : priors.levels) {
        need(level.rows > 0 && level.cols > 0, "the contract has a level without cells");
        need(level.rows <= max_side && level.cols <= max_side && level.ratios.size() < max_side,
             "the contract has a level that is too large");
        bool const sound =
            positive(level.step_x) && positive(level.step_y) && positive(level.min_size) &&
            std::isfinite(level.max_size) && level.max_size >= 0 &&
            std::all_of(level.ratios.begin(), level.ratios.end(), positive);
        need(sound, "the contract's steps, sizes and ratios must be finite and above 0");
        // 2^28 cells, 2^14 boxes and 2^24 classes at most: it cannot overflow
        need(level.cells() * level.boxes_per_cell() <= max_scores / classes,
             "the contract has too many priors and classes");
        scores += level.count() * classes;
        need(scores <= max_scores, "the contract has too many priors and classes");
    }
}

void check_decode(DecodeRule const& rule) {
    need(within_0_1(rule.score_threshold) && within_0_1(rule.iou_threshold),
         "the contract's score and IoU thresholds must lie within 0..1");
    need(std::isfinite(rule.iou_epsilon) && rule.iou_epsilon >= 0,
         "the contract's IoU epsilon must be finite and at least 0");
}

}  // namespace

Contract parse_contract(void const* data, std::size_t size) {
    need(data != nullptr || size == 0, "the contract is a null pointer");
    auto const* const bytes = static_cast<unsigned char const*>(data);
    need(size >= header_size && std::equal(std::begin(magic), std::end(magic), bytes),
         "not a contract: the bytes do not begin with MBV3SSDC");
    Reader header(bytes + sizeof magic, header_size - sizeof magic, cut_off);
    std::uint32_t const version = header.whole();
    if (version != contract_version) {
        throw ContractVersionError("the contract has version " + std::to_string(version) +
                                   ", this library reads " + std::to_string(contract_version));
    }
    std::uint32_t const body_size = header.whole();
    need(body_size == size - header_size, "the contract is cut off or has trailing bytes");
    need(header.whole() == crc32(bytes + header_size, body_size),
         "the contract is damaged: its checksum does not match");

    Reader reader(bytes + header_size, body_size, cut_off);
    Contract contract;
    contract.name = reader.text();
    contract.family = reader.text();
    contract.input = read_input(reader);
    contract.priors = read_priors(reader);
    contract.coder = read_coder(reader);
    contract.decode = read_decode(reader);
    std::size_t const classes = reader.count(4);
    for (std::size_t i = 0; i < classes; ++i) {
        contract.class_names.push_back(reader.text());
    }
    need(reader.left() == 0, "the contract has trailing bytes");
    check_contract(contract);
    return contract;
}

void check_contract(Contract const& contract) {
    need(contract.class_names.size() >= 2,
         "the contract needs the background and at least one class");
    need(contract.class_names.size() <= max_scores, "the contract has too many classes");
    check_input(contract.input);
    check_priors(contract.priors, contract.class_names.size());
    BoxCoder const& coder = contract.coder;
    need(positive(coder.centre_variance) && positive(coder.size_variance),
         "the contract's box variances must be finite and above 0");
    need(!std::isnan(coder.min_log_size) && !std::isnan(coder.max_log_size),
         "the contract's limits of box sizes are not numbers");
    check_decode(contract.decode);
}

}  // namespace mbv3ssd
