// For any heads, the detections are finite, in order, and as many as the rules allow.
#include <cmath>

#include "input.hpp"
#include "mbv3ssd/postprocess.hpp"
#include "small_model.hpp"

namespace {

using mbv3ssd::Contract;

Contract contract_from(Input& input) {
    Contract contract = small_contract();
    std::uint32_t const bits = input.whole();
    auto& rule = contract.decode;
    double const thresholds[] = {0.0, 1e-6, 0.01, 0.5, 1.0};
    rule.score_threshold = thresholds[bits % 5];
    rule.iou_threshold = thresholds[bits / 5 % 5];
    rule.candidates_per_class = bits >> 5U & 7U;
    rule.keep_per_class = bits >> 8U & 3U;
    rule.keep_total = bits >> 10U & 15U;
    rule.clip_before_nms = (bits >> 14U & 1U) != 0;
    rule.suppress_at_threshold = (bits >> 15U & 1U) != 0;
    rule.order = static_cast<mbv3ssd::ResultOrder>((bits >> 16U) % 3U);
    rule.box_edges = static_cast<mbv3ssd::BoxEdges>(bits >> 18U & 1U);
    rule.nms_scope = static_cast<mbv3ssd::NmsScope>(bits >> 19U & 1U);
    contract.class_names.resize(2 + (bits >> 20U) % 20U);
    return contract;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    Input input(data, size);
    Contract const contract = contract_from(input);
    std::size_t const classes = contract.class_names.size();
    mbv3ssd::Postprocessor postprocessor(contract);
    mbv3ssd::Heads heads;
    heads.conf = static_cast<mbv3ssd::ConfForm>(input.below(2));
    heads.loc = static_cast<mbv3ssd::LocForm>(input.below(2));
    auto const layout = static_cast<mbv3ssd::HeadLayout>(input.below(2));

    // each head in memory of its own, so that the sanitizer finds a read outside
    std::vector<std::vector<float>> locs;
    std::vector<std::vector<float>> confs;
    std::vector<mbv3ssd::HeadPart> parts;
    for (auto const& level : contract.priors.levels) {
        std::size_t const gap = layout == mbv3ssd::HeadLayout::planes ? input.below(3) : 0;
        std::size_t const boxes = level.boxes_per_cell();
        std::size_t const step = level.cells() + gap;
        locs.push_back(input.floats(step * 4 * boxes - gap));
        confs.push_back(input.floats(step * classes * boxes - gap));
        parts.push_back({locs.back().data(), confs.back().data(), locs.back().size(),
                         confs.back().size(), layout, step, step});
    }
    heads.parts = parts.data();
    heads.part_count = parts.size();

    for (int round = 0; round < 2; ++round) {
        auto const& found = postprocessor.run(heads, {3, 2, true});
        must(found.size() <= postprocessor.capacity());
        must(contract.decode.keep_total == 0 || found.size() <= contract.decode.keep_total);
        for (auto const& one : found) {
            must(std::isfinite(one.score) && static_cast<double>(one.score) >
                     static_cast<double>(static_cast<float>(contract.decode.score_threshold)));
            must(one.label >= 1 && static_cast<std::size_t>(one.label) < classes);
            must(one.prior >= 0 && one.prior < 57);
            must(one.box.x_min >= 0 && one.box.x_max <= 3 && one.box.y_max <= 2);
        }
    }
    return 0;
}
