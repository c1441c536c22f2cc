// The intrinsics and the plain implementation give the same bits, whatever the numbers.
#include "lanes.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "check.hpp"
#include "exponent.hpp"
#include "random.hpp"

namespace {

using mbv3ssd::Lanes;
using mbv3ssd::PlainLanes;

bool same(float a, float b) {
    return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

bool same(Lanes const& lanes, PlainLanes const& plain) {
    float of_lanes[8];
    float of_plain[8];
    lanes.store(of_lanes);
    plain.store(of_plain);
    return std::equal(of_lanes, of_lanes + 8, of_plain,
                      [](float a, float b) { return same(a, b); });
}

// A NaN with random payload and sign.
float any_nan(Random& random) {
    std::uint32_t const bits = 0x7F800001U | (random.whole() & 0x807FFFFFU);
    float value = 0.0F;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float any_float(Random& random) {
    float const edges[] = {0.0F,
                           -0.0F,
                           1.0F,
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::max(),
                           std::numeric_limits<float>::denorm_min(),
                           std::numeric_limits<float>::quiet_NaN()};
    switch (random.below(4)) {
        case 0:
            return random.below(3) == 0 ? any_nan(random) : edges[random.below(8)];
        case 1:
            return random.between(-1e30F, 1e30F);
        default:
            return random.between(-110.0F, 95.0F);
    }
}

void check_operations(float const* a, float const* b) {
    Lanes const x = Lanes::load(a);
    Lanes const y = Lanes::load(b);
    PlainLanes const p = PlainLanes::load(a);
    PlainLanes const q = PlainLanes::load(b);
    CHECK(same(x + y, p + q));
    CHECK(same(x - y, p - q));
    CHECK(same(x * y, p * q));
    CHECK(same(x / y, p / q));
    CHECK(same(times_two_to(x, y), times_two_to(p, q)));
    CHECK(same(zero_where_below(x, y, x), zero_where_below(p, q, p)));
    CHECK(same(mbv3ssd::exponential_of_small(x), mbv3ssd::exponential_of_small(p)));
    CHECK(above(x, y) == above(p, q));
    CHECK(at_or_above(x, y) == at_or_above(p, q));
    CHECK(same(sum(x), sum(p)));
}

void check_exponential(float power, float tolerance) {
    double const exact = std::exp(static_cast<double>(power));
    double const found = static_cast<double>(mbv3ssd::exponential(power));
    CHECK(std::fabs(found - exact) <= static_cast<double>(tolerance) * exact);
}

}  // namespace

TEST_CASE("every operation gives the same bits") {
    Random random(1);
    for (int round = 0; round < 20000; ++round) {
        float a[8];
        float b[8];
        for (int i = 0; i < 8; ++i) {
            a[i] = any_float(random);
            b[i] = any_float(random);
        }
        check_operations(a, b);
    }
}

TEST_CASE("the exponential is exact to 2.4e-7") {
    Random random(2);
    for (int round = 0; round < 100000; ++round) {
        check_exponential(random.between(-87.3F, 88.7F), 2.4e-7F);
    }
    for (int round = 0; round < 1000; ++round) {
        CHECK(std::isnan(mbv3ssd::exponential(any_nan(random))));
    }
}

TEST_CASE("the exponential at its ends") {
    float const infinity = std::numeric_limits<float>::infinity();
    CHECK(mbv3ssd::exponential(0.0F) == 1.0F);
    CHECK(mbv3ssd::exponential(-infinity) == 0.0F);
    CHECK(mbv3ssd::exponential(-87.4F) == 0.0F);
    CHECK(mbv3ssd::exponential(-87.2F) > 0.0F);
    CHECK(mbv3ssd::exponential(89.0F) == infinity);
    CHECK(mbv3ssd::exponential(infinity) == infinity);
    CHECK(std::isnan(mbv3ssd::exponential(std::numeric_limits<float>::quiet_NaN())));
}
