// Runs of a network on one input, and their results.
#pragma once

#include <cstdint>
#include <vector>

#include "package.hpp"

namespace selftest {

// The outputs of a network for one image.
struct Output {
    std::vector<float> loc, conf;     // (priors, 4) and (priors, classes)
    std::vector<float> priorbox;      // (2, 4 priors): corners, variances; empty for raw heads
    std::vector<mbv3ssd_detection> detection_out;  // empty for raw heads
};

class Network {
   public:
    // Throws std::runtime_error if ncnn cannot load the files.
    Network(Package const& package, std::string const& arithmetic, int threads);

    [[nodiscard]] bool is_whole() const { return whole_; }

    // All outputs for `tensor`; boxes are scaled to `picture`.
    [[nodiscard]] Output run(std::vector<float> const& tensor, Picture const& picture) const;

    // Only what a program on a board would compute: `detection_out`, or raw heads.
    void run_as_shipped(std::vector<float> const& tensor) const;

   private:
    Package const& package_;
    ncnn::Net net_;
    bool whole_ = false;
    InputSize made_for_;
};

// The input tensor of a picture.
[[nodiscard]] std::vector<float> tensor_from(Package const& package, Picture const& picture);

// The library's detections for heads in rows, in pixels of an image of that size.
[[nodiscard]] std::vector<mbv3ssd_detection> boxes_from(Package const& package,
                                                        std::vector<float> const& loc,
                                                        std::vector<float> const& conf,
                                                        std::uint32_t width, std::uint32_t height);

}  // namespace selftest
