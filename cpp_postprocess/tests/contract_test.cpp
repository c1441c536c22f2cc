#include "mbv3ssd/contract.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "check.hpp"
#include "small_model.hpp"

namespace {

using mbv3ssd::Contract;
using mbv3ssd::ContractError;

template <class Change>
void check_refused(char const* words, Change change) {
    Contract contract = small_contract();
    change(contract);
    auto const bytes = ContractBytes(contract).sealed();
    CHECK_ERROR(ContractError, words, mbv3ssd::parse_contract(bytes.data(), bytes.size()));
}

}  // namespace

TEST_CASE("a contract is read as it was written") {
    Contract const written = small_contract();
    auto const bytes = ContractBytes(written).sealed();
    Contract const read = mbv3ssd::parse_contract(bytes.data(), bytes.size());
    CHECK(read.name == "small");
    CHECK(read.family == "native");
    CHECK(read.class_names == written.class_names);
    CHECK(read.priors.count() == 57);
    CHECK(read.priors.levels[1].ratios == written.priors.levels[1].ratios);
    CHECK(read.decode.score_threshold == 0.05);
    CHECK(read.decode.keep_total == 20);
    CHECK(std::isinf(read.coder.max_log_size));
}

TEST_CASE("another version and a null pointer are refused") {
    auto const newer = ContractBytes(small_contract()).sealed(2);
    CHECK_ERROR(mbv3ssd::ContractVersionError, "has version 2",
                mbv3ssd::parse_contract(newer.data(), newer.size()));
    CHECK_ERROR(ContractError, "null pointer", mbv3ssd::parse_contract(nullptr, 7));
}

TEST_CASE("every value is checked") {
    double const nan = std::numeric_limits<double>::quiet_NaN();
    check_refused("no pixels", [](Contract& c) { c.input.width = 0; });
    check_refused("input is too large", [](Contract& c) { c.input.height = 1U << 20U; });
    check_refused("mean", [&](Contract& c) { c.input.mean[1] = nan; });
    check_refused("standard deviation", [](Contract& c) { c.input.deviation[2] = 0; });
    check_refused("standard deviation", [](Contract& c) { c.input.deviation[2] = 1e-300; });
    check_refused("prior frame", [](Contract& c) { c.priors.frame_width = -1; });
    check_refused("no level", [](Contract& c) { c.priors.levels.clear(); });
    check_refused("without cells", [](Contract& c) { c.priors.levels[0].rows = 0; });
    check_refused("level that is too large", [](Contract& c) { c.priors.levels[0].cols = ~0U; });
    check_refused("too many priors", [](Contract& c) {
        c.priors.levels[0].rows = c.priors.levels[0].cols = 16000;
    });
    check_refused("steps, sizes", [&](Contract& c) { c.priors.levels[2].step_x = nan; });
    check_refused("steps, sizes", [](Contract& c) { c.priors.levels[2].ratios[0] = 0; });
    check_refused("box variances", [](Contract& c) { c.coder.size_variance = 0; });
    check_refused("limits of box sizes", [&](Contract& c) { c.coder.min_log_size = nan; });
    check_refused("thresholds", [](Contract& c) { c.decode.score_threshold = 1.5; });
    check_refused("thresholds", [&](Contract& c) { c.decode.iou_threshold = nan; });
    check_refused("IoU epsilon", [](Contract& c) { c.decode.iou_epsilon = -1; });
    check_refused("at least one class", [](Contract& c) { c.class_names.resize(1); });
    check_refused("at least one class", [](Contract& c) { c.class_names.clear(); });
    check_refused("order of channels", [](Contract& c) {
        c.input.channel_order = static_cast<mbv3ssd::ChannelOrder>(2);
    });
    check_refused("scope of NMS", [](Contract& c) {
        c.decode.nms_scope = static_cast<mbv3ssd::NmsScope>(9);
    });
}
