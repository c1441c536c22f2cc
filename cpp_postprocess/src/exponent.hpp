// e to the power of eight floats.
//
// e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; e^r = 1 + r + r^2 P(r), the
// coefficients of P fitted for the least largest error. Off by at most 0.7 units of 2^-23, relative.
// NaN stays NaN; below -103.3 the result is 0, above 88.7 infinite; in between, denormals.
#pragma once

#include "lanes.hpp"

namespace mbv3ssd {

template <class L>
L exponential(L const& power) {
    // 1.5 * 2^23: adding it leaves a whole number in the lowest bits
    L const shift = L::splat(12582912.0F);
    L const x = min(L::splat(90.0F), max(L::splat(-105.0F), power));
    L const shifted = x * L::splat(1.44269504F) + shift;
    L const n = shifted - shift;
    // ln 2 in two parts: the first has so few bits that its product with n is exact
    L const r = x - n * L::splat(0.693359375F) - n * L::splat(-2.12194440e-4F);
    L p = L::splat(1.97902453e-4F);
    p = p * r + L::splat(1.39447604e-3F);
    p = p * r + L::splat(8.33349768e-3F);
    p = p * r + L::splat(4.16662954e-2F);
    p = p * r + L::splat(1.66666657e-1F);
    p = p * r + L::splat(0.5F);
    return times_two_to(p * (r * r) + r + L::splat(1.0F), shifted);
}

inline float exponential(float power) {
    float lanes[8];
    exponential(Lanes::splat(power)).store(lanes);
    return lanes[0];
}

}  // namespace mbv3ssd
