#include "machine.hpp"

#include <cpu.h>       // ncnn
#include <platform.h>  // ncnn

namespace selftest {
namespace {

struct Feature {
    char const* name;
    int (*here)();
};

constexpr Feature features[] = {
    {"neon", ncnn::cpu_support_arm_neon},
    {"vfpv4", ncnn::cpu_support_arm_vfpv4},
    {"asimdhp", ncnn::cpu_support_arm_asimdhp},
    {"asimddp", ncnn::cpu_support_arm_asimddp},
    {"asimdfhm", ncnn::cpu_support_arm_asimdfhm},
    {"bf16", ncnn::cpu_support_arm_bf16},
    {"i8mm", ncnn::cpu_support_arm_i8mm},
    {"sve", ncnn::cpu_support_arm_sve},
    {"avx", ncnn::cpu_support_x86_avx},
    {"fma", ncnn::cpu_support_x86_fma},
    {"f16c", ncnn::cpu_support_x86_f16c},
    {"avx2", ncnn::cpu_support_x86_avx2},
    {"avx512", ncnn::cpu_support_x86_avx512},
    {"avx512_bf16", ncnn::cpu_support_x86_avx512_bf16},
    {"rvv", ncnn::cpu_support_riscv_v},
};

bool computes_in_halves() {
#if defined(NCNN_ARM82) && !NCNN_ARM82
    return false;
#else
    return ncnn::cpu_support_arm_asimdhp() != 0;
#endif
}

bool has_bf16() {
#if defined(NCNN_BF16) && !NCNN_BF16
    return false;
#else
    return true;
#endif
}

}  // namespace

std::string_view ncnn_release() { return NCNN_VERSION_STRING; }

std::string_view architecture() {
#if defined(__aarch64__) || defined(_M_ARM64)
    return "aarch64";
#elif defined(__arm__) || defined(_M_ARM)
    return "arm";
#elif defined(__x86_64__) || defined(_M_X64)
    return "x86_64";
#elif defined(__riscv)
    return "riscv";
#else
    return "unknown";
#endif
}

std::vector<std::string> cpu_features() {
    std::vector<std::string> names;
    for (Feature const& feature : features) {
        if (feature.here() != 0) {
            names.emplace_back(feature.name);
        }
    }
    return names;
}

std::string arithmetic_at_most(std::string const& asked) {
    if (asked == "fp16" && !computes_in_halves()) {
        return "fp16s";
    }
    return asked == "bf16" && !has_bf16() ? "fp32" : asked;
}

}  // namespace selftest
