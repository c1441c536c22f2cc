// e to the power of eight floats.
//
// e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), the
// coefficients of P are a minimax fit. The relative error is at most 0.7 * 2^-23.
// NaN stays NaN; denormal results are 0.
#pragma once

#include <limits>

#include "lanes.hpp"

namespace mbv3ssd {

inline constexpr float least_power = -87.3F;
inline constexpr float largest_power = 88.3F;

// Every lane of `x` must be at most `largest_power`, or NaN.
template <class L>
L exponential_of_small(L const& x) {
    // 1.5 * 2^23: adding it leaves a whole number in the lowest bits
    L const shift = L::splat(12582912.0F);
    L const shifted = x * L::splat(1.44269504F) + shift;
    L const n = shifted - shift;
    // ln 2 in two parts: the first has so few bits that its product with n is exact
    L const r = x - n * L::splat(0.693359375F) - n * L::splat(-2.12194440e-4F);
    L p = L::splat(1.38144696e-3F);
    p = p * r + L::splat(8.36878084e-3F);
    p = p * r + L::splat(4.16683927e-2F);
    p = p * r + L::splat(1.66665196e-1F);
    p = p * r + L::splat(4.99999940e-1F);
    L const scaled = times_two_to(p * (r * r) + r + L::splat(1.0F), shifted);
    return zero_where_below(scaled, x, L::splat(least_power));
}

inline float exponential(float power) {
    if (power > 89.0F) {
        return std::numeric_limits<float>::infinity();
    }
    bool const is_large = power > largest_power;  // then by the square of its root
    float lanes[8];
    exponential_of_small(Lanes::splat(is_large ? power / 2 : power)).store(lanes);
    return is_large ? lanes[0] * lanes[0] : lanes[0];
}

}  // namespace mbv3ssd
