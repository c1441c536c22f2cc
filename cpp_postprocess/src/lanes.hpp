// Eight floats at once: AVX2, SSE2, NEON, and a plain implementation that gives the same bits.
//
// No fused multiply-add anywhere, so that all of them round alike. `max(a, b)` and `min(a, b)` give b
// where either is NaN or both are equal, as x86 does it; NEON's differ for NaN, which no caller
// lets decide anything.
#pragma once

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
        PlainLanes all{};
        std::memcpy(all.lane, from, sizeof all.lane);
        return all;
    }
    static PlainLanes splat(float value) {
        PlainLanes all{};
        for (float& one : all.lane) {
            one = value;
        }
        return all;
    }
    void store(float* to) const { std::memcpy(to, lane, sizeof lane); }

    template <class Operation>
    static PlainLanes each(PlainLanes const& a, PlainLanes const& b, Operation operation) {
        PlainLanes all{};
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
    // `value` times 2 to the power of the whole numbers in the lowest bits of `shifted`, -126 to 127.
    // A product, because a number added to the exponent could turn NaN into something else.
    friend PlainLanes times_two_to(PlainLanes const& value, PlainLanes const& shifted) {
        return each(value, shifted, [](float x, float n) {
            std::uint32_t bits = 0;
            std::memcpy(&bits, &n, sizeof n);
            bits = (bits << 23U) + 0x3F800000U;
            float power = 0.0F;
            std::memcpy(&power, &bits, sizeof power);
            return x * power;
        });
    }
    // `value`, but 0 where `x` is below `limit`. NaN is below nothing.
    friend PlainLanes zero_where_below(PlainLanes const& value, PlainLanes const& x,
                                       PlainLanes const& limit) {
        PlainLanes all = value;
        for (int i = 0; i < 8; ++i) {
            all.lane[i] = x.lane[i] < limit.lane[i] ? 0.0F : value.lane[i];
        }
        return all;
    }
    // Lanes (0 + 4), (1 + 5), ... first, then those 0 + 2 and 1 + 3, then the two.
    friend float sum(PlainLanes const& a) {
        float const* v = a.lane;
        return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    }
    friend float largest(PlainLanes const& a) {
        float best = a.lane[0];
        for (float const one : a.lane) {
            best = best > one ? best : one;
        }
        return best;
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
        __m256i const n = _mm256_slli_epi32(_mm256_castps_si256(shifted.all), 23);
        __m256i const power = _mm256_add_epi32(n, _mm256_set1_epi32(0x3F800000));
        return value * Lanes{_mm256_castsi256_ps(power)};
    }
    friend Lanes zero_where_below(Lanes value, Lanes x, Lanes limit) {
        return {_mm256_andnot_ps(_mm256_cmp_ps(x.all, limit.all, _CMP_LT_OQ), value.all)};
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
    friend Lanes zero_where_below(Lanes value, Lanes x, Lanes limit) {
        return {_mm_andnot_ps(_mm_cmplt_ps(x.low, limit.low), value.low),
                _mm_andnot_ps(_mm_cmplt_ps(x.high, limit.high), value.high)};
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
        __m128i const n = _mm_slli_epi32(_mm_castps_si128(shifted), 23);
        __m128i const power = _mm_add_epi32(n, _mm_set1_epi32(0x3F800000));
        return _mm_mul_ps(value, _mm_castsi128_ps(power));
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
    friend Lanes zero_where_below(Lanes value, Lanes x, Lanes limit) {
        return {cleared(value.low, vcltq_f32(x.low, limit.low)),
                cleared(value.high, vcltq_f32(x.high, limit.high))};
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
        uint32x4_t const n = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
        uint32x4_t const power = vaddq_u32(n, vdupq_n_u32(0x3F800000U));
        return vmulq_f32(value, vreinterpretq_f32_u32(power));
    }
    static float32x4_t cleared(float32x4_t value, uint32x4_t where) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), where));
    }
};

#else

using Lanes = PlainLanes;

#endif

}  // namespace mbv3ssd
