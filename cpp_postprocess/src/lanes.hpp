// Eight floats at once: AVX2, SSE2, NEON, and a plain twin that gives the same bits.
//
// No fused multiply-add anywhere, so that all twins round alike. `max(a, b)` and `min(a, b)` give b
// where either is NaN or both are equal, as x86 does it; NEON's differ for NaN, which no caller
// lets decide anything.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mbv3ssd {

struct PlainLanes {
    float lane[8];

    static PlainLanes load(float const* from) {
        PlainLanes all;
        std::memcpy(all.lane, from, sizeof all.lane);
        return all;
    }
    static PlainLanes splat(float value) {
        PlainLanes all;
        for (float& one : all.lane) {
            one = value;
        }
        return all;
    }
    void store(float* to) const { std::memcpy(to, lane, sizeof lane); }

    template <class Operation>
    static PlainLanes each(PlainLanes const& a, PlainLanes const& b, Operation operation) {
        PlainLanes all;
        for (int i = 0; i < 8; ++i) {
            all.lane[i] = operation(a.lane[i], b.lane[i]);
        }
        return all;
    }
    template <class Condition>
    static unsigned bits(PlainLanes const& a, PlainLanes const& b, Condition condition) {
        unsigned set = 0;
        for (unsigned i = 0; i < 8; ++i) {
            set |= condition(a.lane[i], b.lane[i]) ? 1U << i : 0U;
        }
        return set;
    }

    friend PlainLanes operator+(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x + y; });
    }
    friend PlainLanes operator-(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x - y; });
    }
    friend PlainLanes operator*(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x * y; });
    }
    friend PlainLanes operator/(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x / y; });
    }
    friend PlainLanes max(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x > y ? x : y; });
    }
    friend PlainLanes min(PlainLanes const& a, PlainLanes const& b) {
        return each(a, b, [](float x, float y) { return x < y ? x : y; });
    }
    // Bit i: whether lane i of `a` is above (at or above) that of `b`.
    friend unsigned above(PlainLanes const& a, PlainLanes const& b) {
        return bits(a, b, [](float x, float y) { return x > y; });
    }
    friend unsigned at_or_above(PlainLanes const& a, PlainLanes const& b) {
        return bits(a, b, [](float x, float y) { return x >= y; });
    }
    // 2 to the power of the whole numbers n, times `value`; see exponent.hpp about `shifted`.
    friend PlainLanes times_two_to(PlainLanes const& value, PlainLanes const& shifted) {
        PlainLanes all;
        for (int i = 0; i < 8; ++i) {
            std::int32_t n = 0;
            std::memcpy(&n, &shifted.lane[i], sizeof n);
            n -= 0x4B400000;
            std::int32_t const half = n >> 1;
            all.lane[i] = value.lane[i] * two_to(half) * two_to(n - half);
        }
        return all;
    }
    // Lanes (0 + 4), (1 + 5), .. first, then those 0 + 2 and 1 + 3, then the two.
    friend float sum(PlainLanes const& a) {
        float const* v = a.lane;
        return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    }
    friend float largest(PlainLanes const& a) {
        float best = a.lane[0];
        for (float one : a.lane) {
            best = best > one ? best : one;
        }
        return best;
    }

   private:
    static float two_to(std::int32_t power) {
        std::uint32_t const pattern = (static_cast<std::uint32_t>(power) + 127U) << 23U;
        float value = 0.0F;
        std::memcpy(&value, &pattern, sizeof value);
        return value;
    }
};

#if defined(__AVX2__)

struct Lanes {
    __m256 all;

    static Lanes load(float const* from) { return {_mm256_loadu_ps(from)}; }
    static Lanes splat(float value) { return {_mm256_set1_ps(value)}; }
    void store(float* to) const { _mm256_storeu_ps(to, all); }

    friend Lanes operator+(Lanes a, Lanes b) { return {_mm256_add_ps(a.all, b.all)}; }
    friend Lanes operator-(Lanes a, Lanes b) { return {_mm256_sub_ps(a.all, b.all)}; }
    friend Lanes operator*(Lanes a, Lanes b) { return {_mm256_mul_ps(a.all, b.all)}; }
    friend Lanes operator/(Lanes a, Lanes b) { return {_mm256_div_ps(a.all, b.all)}; }
    friend Lanes max(Lanes a, Lanes b) { return {_mm256_max_ps(a.all, b.all)}; }
    friend Lanes min(Lanes a, Lanes b) { return {_mm256_min_ps(a.all, b.all)}; }
    friend unsigned above(Lanes a, Lanes b) {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.all, b.all, _CMP_GT_OQ)));
    }
    friend unsigned at_or_above(Lanes a, Lanes b) {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.all, b.all, _CMP_GE_OQ)));
    }
    friend Lanes times_two_to(Lanes value, Lanes shifted) {
        __m256i const bias = _mm256_set1_epi32(127);
        __m256i const n =
            _mm256_sub_epi32(_mm256_castps_si256(shifted.all), _mm256_set1_epi32(0x4B400000));
        __m256i const half = _mm256_srai_epi32(n, 1);
        __m256i const a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
        __m256i const b =
            _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
        return value * Lanes{_mm256_castsi256_ps(a)} * Lanes{_mm256_castsi256_ps(b)};
    }
    friend float sum(Lanes a) {
        __m128 const four =
            _mm_add_ps(_mm256_castps256_ps128(a.all), _mm256_extractf128_ps(a.all, 1));
        __m128 const two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
    friend float largest(Lanes a) {
        __m128 const four =
            _mm_max_ps(_mm256_castps256_ps128(a.all), _mm256_extractf128_ps(a.all, 1));
        __m128 const two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
};

#elif defined(__SSE2__)

struct Lanes {
    __m128 low, high;

    static Lanes load(float const* from) { return {_mm_loadu_ps(from), _mm_loadu_ps(from + 4)}; }
    static Lanes splat(float value) { return {_mm_set1_ps(value), _mm_set1_ps(value)}; }
    void store(float* to) const {
        _mm_storeu_ps(to, low);
        _mm_storeu_ps(to + 4, high);
    }

    friend Lanes operator+(Lanes a, Lanes b) {
        return {_mm_add_ps(a.low, b.low), _mm_add_ps(a.high, b.high)};
    }
    friend Lanes operator-(Lanes a, Lanes b) {
        return {_mm_sub_ps(a.low, b.low), _mm_sub_ps(a.high, b.high)};
    }
    friend Lanes operator*(Lanes a, Lanes b) {
        return {_mm_mul_ps(a.low, b.low), _mm_mul_ps(a.high, b.high)};
    }
    friend Lanes operator/(Lanes a, Lanes b) {
        return {_mm_div_ps(a.low, b.low), _mm_div_ps(a.high, b.high)};
    }
    friend Lanes max(Lanes a, Lanes b) {
        return {_mm_max_ps(a.low, b.low), _mm_max_ps(a.high, b.high)};
    }
    friend Lanes min(Lanes a, Lanes b) {
        return {_mm_min_ps(a.low, b.low), _mm_min_ps(a.high, b.high)};
    }
    friend unsigned above(Lanes a, Lanes b) {
        return joined(_mm_cmpgt_ps(a.low, b.low), _mm_cmpgt_ps(a.high, b.high));
    }
    friend unsigned at_or_above(Lanes a, Lanes b) {
        return joined(_mm_cmpge_ps(a.low, b.low), _mm_cmpge_ps(a.high, b.high));
    }
    friend Lanes times_two_to(Lanes value, Lanes shifted) {
        return {scaled(value.low, shifted.low), scaled(value.high, shifted.high)};
    }
    friend float sum(Lanes a) {
        __m128 const four = _mm_add_ps(a.low, a.high);
        __m128 const two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
    friend float largest(Lanes a) {
        __m128 const four = _mm_max_ps(a.low, a.high);
        __m128 const two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
    }

   private:
    static unsigned joined(__m128 low, __m128 high) {
        return static_cast<unsigned>(_mm_movemask_ps(low) | (_mm_movemask_ps(high) << 4));
    }
    static __m128 scaled(__m128 value, __m128 shifted) {
        __m128i const bias = _mm_set1_epi32(127);
        __m128i const n = _mm_sub_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(0x4B400000));
        __m128i const half = _mm_srai_epi32(n, 1);
        __m128i const a = _mm_slli_epi32(_mm_add_epi32(half, bias), 23);
        __m128i const b = _mm_slli_epi32(_mm_add_epi32(_mm_sub_epi32(n, half), bias), 23);
        return _mm_mul_ps(_mm_mul_ps(value, _mm_castsi128_ps(a)), _mm_castsi128_ps(b));
    }
};

#elif defined(__ARM_NEON) && defined(__aarch64__)

struct Lanes {
    float32x4_t low, high;

    static Lanes load(float const* from) { return {vld1q_f32(from), vld1q_f32(from + 4)}; }
    static Lanes splat(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
    void store(float* to) const {
        vst1q_f32(to, low);
        vst1q_f32(to + 4, high);
    }

    friend Lanes operator+(Lanes a, Lanes b) {
        return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
    }
    friend Lanes operator-(Lanes a, Lanes b) {
        return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
    }
    friend Lanes operator*(Lanes a, Lanes b) {
        return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
    }
    friend Lanes operator/(Lanes a, Lanes b) {
        return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
    }
    friend Lanes max(Lanes a, Lanes b) {
        return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)};
    }
    friend Lanes min(Lanes a, Lanes b) {
        return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)};
    }
    friend unsigned above(Lanes a, Lanes b) {
        return joined(vcgtq_f32(a.low, b.low), vcgtq_f32(a.high, b.high));
    }
    friend unsigned at_or_above(Lanes a, Lanes b) {
        return joined(vcgeq_f32(a.low, b.low), vcgeq_f32(a.high, b.high));
    }
    friend Lanes times_two_to(Lanes value, Lanes shifted) {
        return {scaled(value.low, shifted.low), scaled(value.high, shifted.high)};
    }
    friend float sum(Lanes a) {
        float32x4_t const four = vaddq_f32(a.low, a.high);
        float32x2_t const two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
    }
    friend float largest(Lanes a) { return vmaxvq_f32(vmaxq_f32(a.low, a.high)); }

   private:
    static unsigned joined(uint32x4_t low, uint32x4_t high) {
        std::uint32_t const weights[4] = {1, 2, 4, 8};
        uint32x4_t const weight = vld1q_u32(weights);
        return vaddvq_u32(vandq_u32(low, weight)) | (vaddvq_u32(vandq_u32(high, weight)) << 4U);
    }
    static float32x4_t scaled(float32x4_t value, float32x4_t shifted) {
        int32x4_t const bias = vdupq_n_s32(127);
        int32x4_t const n = vsubq_s32(vreinterpretq_s32_f32(shifted), vdupq_n_s32(0x4B400000));
        int32x4_t const half = vshrq_n_s32(n, 1);
        int32x4_t const a = vshlq_n_s32(vaddq_s32(half, bias), 23);
        int32x4_t const b = vshlq_n_s32(vaddq_s32(vsubq_s32(n, half), bias), 23);
        return vmulq_f32(vmulq_f32(value, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
    }
};

#else

using Lanes = PlainLanes;

#endif

}  // namespace mbv3ssd
