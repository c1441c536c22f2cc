// Random numbers that are the same with every standard library.
#pragma once

#include <cstdint>

class Random {
   public:
    explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}

    std::uint32_t whole() {
        // multiply, add, and take the upper half (Knuth's MMIX constants)
        state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
        return static_cast<std::uint32_t>(state_ >> 32U);
    }
    std::uint32_t below(std::uint32_t end) { return whole() % end; }
    float between(float low, float high) {
        return low + (high - low) * static_cast<float>(whole() >> 8U) / 16777216.0F;
    }

   private:
    std::uint64_t state_;
};
