// A small detector: 57 priors on three levels, five classes, an input of 12 x 10.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "file_bytes.hpp"
#include "mbv3ssd/contract.hpp"
#include "random.hpp"

inline mbv3ssd::Contract small_contract() {
    mbv3ssd::Contract contract;
    contract.name = "small";
    contract.family = "native";
    contract.input.width = 12;
    contract.input.height = 10;
    contract.priors.frame_width = 100;
    contract.priors.frame_height = 90;
    contract.priors.levels = {{3, 5, 20, 30, 30, 0, {0.5}},
                              {3, 2, 50, 30, 40, 60, {2.0, 0.5}},
                              {1, 1, 100, 90, 70, 80, {2.0}}};
    contract.coder.centre_variance = 0.1;
    contract.coder.size_variance = 0.2;
    contract.decode.score_threshold = 0.05;
    contract.decode.iou_threshold = 0.45;
    contract.decode.candidates_per_class = 40;
    contract.decode.keep_total = 20;
    contract.class_names = {"background", "a", "b", "c", "d"};
    return contract;
}

struct SmallHeads {
    std::vector<float> loc, conf;
};

inline SmallHeads random_heads(Random& random, std::size_t priors, std::size_t classes) {
    SmallHeads heads;
    for (std::size_t i = 0; i < priors * 4; ++i) {
        heads.loc.push_back(random.between(-2.0F, 2.0F));
    }
    for (std::size_t i = 0; i < priors * classes; ++i) {
        heads.conf.push_back(random.between(-4.0F, 4.0F));
    }
    return heads;
}

// The bytes that mbv3ssd_deploy/device/contract.py writes.
class ContractBytes : public FileBytes {
   public:
    explicit ContractBytes(mbv3ssd::Contract const& contract) {
        text(contract.name);
        text(contract.family);
        put_input(contract.input);
        put_priors(contract.priors);
        real(contract.coder.centre_variance);
        real(contract.coder.size_variance);
        real(contract.coder.min_log_size);
        real(contract.coder.max_log_size);
        put_decode(contract.decode);
        whole(static_cast<std::uint32_t>(contract.class_names.size()));
        for (std::string const& name : contract.class_names) {
            text(name);
        }
    }

    [[nodiscard]] std::vector<unsigned char> sealed(std::uint32_t version = 1) const {
        return seal(bytes(), version);
    }

    static std::vector<unsigned char> seal(std::vector<unsigned char> const& body,
                                           std::uint32_t version = 1) {
        return FileBytes::seal("MBV3SSDC", body, version);
    }

   private:
    template <class Enum>
    void code(Enum value) {
        whole(static_cast<std::uint32_t>(value));
    }
    void put_input(mbv3ssd::InputRule const& input) {
        whole(input.width);
        whole(input.height);
        code(input.channel_order);
        code(input.resize);
        for (double const mean : input.mean) {
            real(mean);
        }
        for (double const deviation : input.deviation) {
            real(deviation);
        }
    }
    void put_priors(mbv3ssd::PriorTable const& priors) {
        real(priors.frame_width);
        real(priors.frame_height);
        code(priors.clip);
        code(priors.rounding);
        whole(static_cast<std::uint32_t>(priors.levels.size()));
        for (mbv3ssd::PriorLevel const& level : priors.levels) {
            whole(level.rows);
            whole(level.cols);
            real(level.step_x);
            real(level.step_y);
            real(level.min_size);
            real(level.max_size);
            whole(static_cast<std::uint32_t>(level.ratios.size()));
            for (double const ratio : level.ratios) {
                real(ratio);
            }
        }
    }
    void put_decode(mbv3ssd::DecodeRule const& rule) {
        real(rule.score_threshold);
        real(rule.iou_threshold);
        real(rule.iou_epsilon);
        whole(rule.candidates_per_class);
        whole(rule.keep_per_class);
        whole(rule.keep_total);
        whole(rule.clip_before_nms ? 1 : 0);
        whole(rule.suppress_at_threshold ? 1 : 0);
        code(rule.order);
        code(rule.box_edges);
        code(rule.nms_scope);
    }
};
