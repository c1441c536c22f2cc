// What computes here: the processor, and the ncnn that was linked.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace selftest {

[[nodiscard]] std::string_view ncnn_release();
[[nodiscard]] std::string_view architecture();

// Those that ncnn asks for, by ncnn's names.
[[nodiscard]] std::vector<std::string> cpu_features();

// Returns what an arithmetic that is asked for can become at most: "fp16" is "fp16s" where the
// processor does not compute in halves, and "bf16" is "fp32" where ncnn was built without it.
[[nodiscard]] std::string arithmetic_at_most(std::string const& asked);

}  // namespace selftest
