// ncnn's half of an example: a net that was loaded, tensors in and out.
#pragma once

#include <net.h>  // ncnn

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "detector.hpp"

// How ncnn computes: "fp32" exactly; "fp16s" keeps halves and computes in float32; "fp16" computes
// in halves where the CPU can, which is what ncnn does if nobody says otherwise; "bf16".
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

// Planes of an ncnn::Mat may stand apart; the tensor's stand close.
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
