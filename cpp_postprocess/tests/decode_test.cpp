#include "mbv3ssd/decode.hpp"

#include <cmath>
#include <limits>

#include "check.hpp"

int main() {
    using mbv3ssd::Box;
    float const infinity = std::numeric_limits<float>::infinity();
    mbv3ssd::BoxCoder coder;
    coder.centre_variance = 0.5;
    coder.size_variance = 0.25;
    mbv3ssd::Prior const prior{0.5F, 0.25F, 0.5F, 0.25F};
    mbv3ssd::BoxDecoder const decoder(coder);

    float const still[] = {0, 0, 0, 0};
    Box box = decoder.decode(still, prior);
    CHECK(box.x_min == 0.25F && box.x_max == 0.75F && box.y_min == 0.125F && box.y_max == 0.375F);

    float const moved[] = {2, -4, 0, 0};  // by 2 * 0.5 * 0.5 and -4 * 0.5 * 0.25
    box = decoder.decode(moved, prior);
    CHECK(box.x_min == 0.75F && box.y_min == -0.375F);

    float const grown[] = {0, 0, 4, 0};  // e times as wide
    box = decoder.decode(grown, prior);
    CHECK(std::fabs(box.x_max - box.x_min - 0.5F * 2.7182818F) < 1e-6F);

    coder.max_log_size = 0;
    coder.min_log_size = -1;
    mbv3ssd::BoxDecoder const limited(coder);
    float const far[] = {0, 0, infinity, -infinity};
    box = limited.decode(far, prior);
    CHECK(box.x_max - box.x_min == 0.5F);
    CHECK(std::fabs(box.y_max - box.y_min - 0.25F * 0.36787944F) < 1e-6F);

    CHECK(mbv3ssd::is_finite(box));
    CHECK(!mbv3ssd::is_finite(decoder.decode(far, prior)));
    float const no_number[] = {0, 0, 0, std::numeric_limits<float>::quiet_NaN()};
    CHECK(!mbv3ssd::is_finite(decoder.decode(no_number, prior)));
    CHECK(!mbv3ssd::is_finite(limited.decode(no_number, prior)));
}
