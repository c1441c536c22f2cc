#include "resize_tables.hpp"

#include <algorithm>
#include <cmath>

namespace mbv3ssd {
namespace {

constexpr int coefficient_bits = 11;  // of OpenCV's fixed-point bilinear resize

std::int32_t fixed(float weight) {
    // half to even, as OpenCV rounds
    return static_cast<std::int32_t>(std::nearbyint(weight * (1 << coefficient_bits)));
}

}  // namespace

void blend_like_opencv(std::vector<Blend>& blends, std::uint32_t old_size, std::uint32_t new_size,
                       Axis axis) {
    double const scale = 1.0 / (static_cast<double>(new_size) / old_size);
    blends.resize(new_size);
    for (std::uint32_t i = 0; i < new_size; ++i) {
        auto const place = static_cast<float>((i + 0.5) * scale - 0.5);
        auto first = static_cast<std::int64_t>(std::floor(place));
        float weight = place - static_cast<float>(first);
        std::int64_t const last = std::int64_t{old_size} - 1;
        if (axis == Axis::along_row && (first < 0 || first >= last)) {
            first = first < 0 ? 0 : last;
            weight = 0.0F;
        }
        blends[i] = {static_cast<std::uint32_t>(std::clamp<std::int64_t>(first, 0, last)),
                     static_cast<std::uint32_t>(std::clamp<std::int64_t>(first + 1, 0, last)),
                     weight, fixed(1.0F - weight), fixed(weight)};
    }
}

void blend_like_torch(std::vector<Blend>& blends, std::uint32_t old_size, std::uint32_t new_size) {
    double const scale = static_cast<float>(old_size) / static_cast<float>(new_size);
    blends.resize(new_size);
    for (std::uint32_t i = 0; i < new_size; ++i) {
        float const place = std::max(static_cast<float>((i + 0.5) * scale - 0.5), 0.0F);
        std::uint32_t const first = std::min(static_cast<std::uint32_t>(place), old_size - 1);
        blends[i] = {first, std::min(first + 1, old_size - 1), place - static_cast<float>(first),
                     0, 0};
    }
}

void tap_like_pillow(std::vector<Taps>& taps, std::vector<std::int32_t>& weights,
                     std::uint32_t old_size, std::uint32_t new_size) {
    double const scale = static_cast<double>(old_size) / new_size;
    double const reach = std::max(scale, 1.0);
    taps.resize(new_size);
    weights.clear();
    for (std::uint32_t i = 0; i < new_size; ++i) {
        double const centre = (i + 0.5) * scale;
        auto const first =
            static_cast<std::uint32_t>(std::max(std::trunc(centre - reach + 0.5), 0.0));
        auto const stop = static_cast<std::uint32_t>(
            std::min(std::trunc(centre + reach + 0.5), static_cast<double>(old_size)));
        auto const share = [&](std::uint32_t at) {
            return std::max(1.0 - std::fabs((at - centre + 0.5) * (1.0 / reach)), 0.0);
        };
        double total = 0.0;
        for (std::uint32_t at = first; at < stop; ++at) {
            total += share(at);
        }
        taps[i] = {first, stop - first, weights.size()};
        for (std::uint32_t at = first; at < stop; ++at) {
            double const weight = share(at) * (1.0 / total);
            double const whole = std::floor(weight * (1 << fraction_bits) + 0.5);
            weights.push_back(static_cast<std::int32_t>(whole));
        }
    }
}

}  // namespace mbv3ssd
