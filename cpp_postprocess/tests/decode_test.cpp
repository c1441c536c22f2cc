#include "mbv3ssd/decode.hpp"

#include <cmath>
#include <limits>

#include "check.hpp"

using mbv3ssd::Box;
using mbv3ssd::BoxDecoder;

namespace {

mbv3ssd::Prior const prior{0.5F, 0.25F, 0.5F, 0.25F};

mbv3ssd::BoxCoder small_coder() {
    mbv3ssd::BoxCoder coder;
    coder.centre_variance = 0.5;
    coder.size_variance = 0.25;
    return coder;
}

}  // namespace

TEST_CASE("offsets move and scale a prior") {
    BoxDecoder const decoder(small_coder());

    float const still[] = {0, 0, 0, 0};
    Box box = decoder.decode(still, prior);
    CHECK(box.x_min == 0.25F);
    CHECK(box.x_max == 0.75F);
    CHECK(box.y_min == 0.125F);
    CHECK(box.y_max == 0.375F);

    float const moved[] = {2, -4, 0, 0};  // by 2 * 0.5 * 0.5 and -4 * 0.5 * 0.25
    box = decoder.decode(moved, prior);
    CHECK(box.x_min == 0.75F);
    CHECK(box.y_min == -0.375F);

    float const grown[] = {0, 0, 4, 0};  // e times as wide
    box = decoder.decode(grown, prior);
    CHECK(std::fabs(box.x_max - box.x_min - 0.5F * 2.7182818F) < 1e-6F);
}

TEST_CASE("sizes are limited; what is not finite is recognised") {
    BoxDecoder const decoder(small_coder());
    mbv3ssd::BoxCoder coder = small_coder();
    coder.max_log_size = 0;
    coder.min_log_size = -1;
    BoxDecoder const limited(coder);
    float const infinity = std::numeric_limits<float>::infinity();
    float const far[] = {0, 0, infinity, -infinity};
    Box const box = limited.decode(far, prior);
    CHECK(box.x_max - box.x_min == 0.5F);
    CHECK(std::fabs(box.y_max - box.y_min - 0.25F * 0.36787944F) < 1e-6F);

    CHECK(mbv3ssd::is_finite(box));
    CHECK(!mbv3ssd::is_finite(decoder.decode(far, prior)));
    float const no_number[] = {0, 0, 0, std::numeric_limits<float>::quiet_NaN()};
    CHECK(!mbv3ssd::is_finite(decoder.decode(no_number, prior)));
    CHECK(!mbv3ssd::is_finite(limited.decode(no_number, prior)));
}
