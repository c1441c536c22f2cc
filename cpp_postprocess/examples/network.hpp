// ncnn's half of an example: a loaded net, tensors in and out.
#pragma once

#include <net.h>  // ncnn

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "detector.hpp"

// How ncnn computes: "fp32" exactly; "fp16s" keeps halves and computes in float32; "fp16" computes
// in halves if the CPU can, ncnn's default; "bf16".
inline void set_arithmetic(ncnn::Option& option, std::string const& name) {
    if (name != "fp32" && name != "fp16s" && name != "fp16" && name != "bf16") {
        throw std::runtime_error("the arithmetic is " + name + ", not fp32, fp16s, fp16 or bf16");
    }
    bool const halves = name == "fp16s" || name == "fp16";
    option.use_fp16_packed = halves;
    option.use_fp16_storage = halves;
    option.use_fp16_arithmetic = name == "fp16";
    option.use_bf16_packed = name == "bf16";
    option.use_bf16_storage = name == "bf16";
    option.use_winograd_convolution = name != "fp32";
    option.use_vulkan_compute = false;
}

// Options must be set before: they decide how weights are kept.
inline void load_net(ncnn::Net& net, std::string const& param, std::string const& bin) {
    if (net.load_param(param.c_str()) != 0) {
        throw std::runtime_error("ncnn cannot load " + param);
    }
    if (net.load_model(bin.c_str()) != 0) {
        throw std::runtime_error("ncnn cannot load " + bin);
    }
}

// The input size of a network in pixels; 0 if its file does not declare it.
struct InputSize {
    std::uint32_t width = 0, height = 0;
};

inline std::uint32_t number_behind(std::string const& key, std::string const& line) {
    std::size_t const at = line.find(key);
    return at == std::string::npos
               ? 0
               : static_cast<std::uint32_t>(std::strtoul(&line[at + key.size()], nullptr, 10));
}

inline InputSize input_size_of(std::string const& param) {
    std::ifstream file(param);
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("Input ", 0) == 0) {
            return {number_behind(" 0=", line), number_behind(" 1=", line)};
        }
    }
    return {};
}

// Throws std::runtime_error if `made_for` is not the size of the given input: ncnn
// would read past the end of its blobs.
inline void check_input(InputSize const& made_for, std::uint32_t width, std::uint32_t height) {
    auto const differs = [](std::uint32_t a, std::uint32_t b) { return a != 0 && a != b; };
    if (differs(made_for.width, width) || differs(made_for.height, height)) {
        throw std::runtime_error("the network takes " + std::to_string(made_for.width) + " x " +
                                 std::to_string(made_for.height) + " pixels, not " +
                                 std::to_string(width) + " x " + std::to_string(height) +
                                 ": these files belong to different models");
    }
}

inline void feed(ncnn::Extractor& extractor, std::string const& blob, ncnn::Mat const& mat) {
    if (extractor.input(blob.c_str(), mat) != 0) {
        throw std::runtime_error("the network does not take " + blob);
    }
}

// Planes of an ncnn::Mat may have gaps between them; the tensor's have none.
inline ncnn::Mat mat_from_tensor(std::vector<float> const& tensor,
                                 mbv3ssd_description const& about) {
    int const width = static_cast<int>(about.input_width);
    int const height = static_cast<int>(about.input_height);
    std::size_t const plane = std::size_t{about.input_width} * about.input_height;
    ncnn::Mat mat(width, height, 3);
    for (int channel = 0; channel < 3; ++channel) {
        float const* from = tensor.data() + static_cast<std::size_t>(channel) * plane;
        std::copy(from, from + plane, static_cast<float*>(mat.channel(channel)));
    }
    return mat;
}

inline ncnn::Mat extract(ncnn::Extractor& extractor, std::string const& blob) {
    ncnn::Mat mat;
    if (extractor.extract(blob.c_str(), mat) != 0) {
        throw std::runtime_error("the network does not give " + blob);
    }
    return mat;
}
