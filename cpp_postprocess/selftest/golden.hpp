// What a packaged model must compute: golden.mbv3g, which `mbv3ssd-deploy package` writes.
//
// docs/formats/golden.md describes the file; mbv3ssd_deploy/device/golden.py writes it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace selftest {

inline constexpr std::uint32_t golden_version = 1;

using Sha256 = std::array<unsigned char, 32>;

// A file of the package, beside the golden one.
struct GoldenFile {
    std::string name;  // no path
    std::uint32_t size = 0;
    Sha256 sha256{};
};

enum class Outputs : std::uint32_t { detections, concat, levels };

// What a network may err by when it computes so. Errors of heads are relative: the root mean square
// of the error over that of the expected tensor.
struct Limits {
    std::string arithmetic;
    double heads = 0;      // relative root mean square
    double priors = 0;     // of a corner, in units of the image
    double box_iou = 0;    // at which a box is found again
    double box_share = 0;  // of the boxes that must be
    double box_score = 0;  // how far the score of a box found again may be off
    double margin = 0;     // boxes whose score is this near to the cut are not counted
};

// The same for what is not the network's: floats on both sides.
struct ExactLimits {
    double levels = 0;  // of the input tensor, in grey levels
    double score = 0;
    double pixels = 0;
};

struct GoldenBox {
    std::uint32_t label = 0;
    float score = 0;
    float x_min = 0, y_min = 0, x_max = 0, y_max = 0;  // in pixels of the image
};

struct GoldenBoxes {
    double cut = 0;  // the score below which the list holds nothing
    std::vector<GoldenBox> boxes;
};

struct GoldenImage {
    std::string file;  // a binary PPM beside the golden file
    std::uint32_t width = 0, height = 0;
    std::vector<float> tensor;    // (3, input height, input width)
    std::vector<float> loc;       // (priors, 4)
    std::vector<float> conf;      // (priors, classes)
    GoldenBoxes own;              // by the family's own rules
    GoldenBoxes detection_out;    // by ncnn's DetectionOutput; empty for raw heads
};

struct Golden {
    std::string name, made_by;
    Outputs outputs = Outputs::detections;
    std::uint32_t input_width = 0, input_height = 0, priors = 0, classes = 0;
    std::array<double, 3> deviation{};  // of the input's channels: from normalised to grey levels
    std::string param, bin, contract;   // names among `files`
    std::vector<GoldenFile> files;
    ExactLimits exact;
    std::vector<Limits> limits;  // a row an arithmetic
    std::vector<GoldenImage> images;

    // Returns the row of an arithmetic, or null.
    [[nodiscard]] Limits const* limits_of(std::string const& arithmetic) const;
};

// The bytes are not a golden file, or it contradicts itself.
class GoldenError : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// Returns the contents of the `size` bytes at `data`, checked. Throws GoldenError.
[[nodiscard]] Golden parse_golden(void const* data, std::size_t size);

}  // namespace selftest
