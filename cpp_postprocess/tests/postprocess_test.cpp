#include "mbv3ssd/postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "candidates.hpp"
#include "check.hpp"
#include "small_model.hpp"

namespace {

using mbv3ssd::ConfForm;
using mbv3ssd::Detection;
using mbv3ssd::HeadPart;
using mbv3ssd::Heads;
using mbv3ssd::Postprocessor;

HeadPart part_of(SmallHeads const& heads) {
    return {heads.loc.data(), heads.conf.data(), heads.loc.size(), heads.conf.size(),
            mbv3ssd::HeadLayout::rows, 0, 0};
}

std::vector<Detection> detect(Postprocessor& postprocessor, SmallHeads const& heads) {
    HeadPart const part = part_of(heads);
    return postprocessor.run({&part, 1, ConfForm::logits, mbv3ssd::LocForm::offsets}, {});
}

// Compares the finders over the CPU's lanes and over plain floats, bit by bit.
void check_lanes(Random& random, std::size_t classes, ConfForm form, double threshold) {
    constexpr std::size_t priors = 57;
    SmallHeads heads = random_heads(random, priors, classes);
    if (random.below(3) == 0) {
        heads.conf[random.below(static_cast<std::uint32_t>(heads.conf.size()))] =
            std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<float> row(classes + 8);
    std::vector<std::uint64_t> found;
    std::vector<std::uint64_t> found_plainly;
    mbv3ssd::CandidateFinder<mbv3ssd::Lanes> finder(form, classes, threshold, row.data(), found);
    finder.look_in_rows(heads.conf.data(), priors, 0);
    finder.look_in_planes(heads.conf.data(), 19, 19, 3, 0);
    mbv3ssd::CandidateFinder<mbv3ssd::PlainLanes> plain(form, classes, threshold, row.data(),
                                                        found_plainly);
    plain.look_in_rows(heads.conf.data(), priors, 0);
    plain.look_in_planes(heads.conf.data(), 19, 19, 3, 0);
    CHECK(found == found_plainly);
}

// All background.
SmallHeads empty_heads() {
    SmallHeads heads{std::vector<float>(57 * 4, 0.0F), std::vector<float>(57 * 5, 0.0F)};
    for (std::size_t i = 0; i < 57; ++i) {
        heads.conf[i * 5] = 20;
    }
    return heads;
}

}  // namespace

TEST_CASE("one prior of one class is found") {
    Postprocessor postprocessor(small_contract());
    CHECK(postprocessor.priors().size() == 57);
    SmallHeads heads = empty_heads();
    CHECK(detect(postprocessor, heads).empty());
    heads.conf[30 * 5 + 3] = 22;
    auto found = detect(postprocessor, heads);
    REQUIRE(found.size() == 1);
    CHECK(found[0].label == 3);
    CHECK(found[0].prior == 30);
    CHECK(std::fabs(found[0].score - 1 / (1 + std::exp(-2.0F))) < 1e-6F);
}

TEST_CASE("equal scores: the lower prior comes first, then the lower label") {
    Postprocessor postprocessor(small_contract());
    SmallHeads heads = empty_heads();
    heads.conf[30 * 5 + 3] = 22;
    heads.conf[2 * 5 + 4] = heads.conf[50 * 5 + 1] = heads.conf[50 * 5 + 4] = 22;
    heads.conf[2 * 5 + 1] = 22;
    auto found = detect(postprocessor, heads);
    REQUIRE(found.size() == 5);
    CHECK(found[0].prior == 30);
    CHECK(found[1].prior == 2);
    CHECK(found[1].label == 1);
    CHECK(found[2].label == 4);
    CHECK(found[3].prior == 50);
    CHECK(found[3].label == 1);
    CHECK(found[4].label == 4);

    // the background may be infinite
    heads.conf[30 * 5] = -std::numeric_limits<float>::infinity();
    CHECK(detect(postprocessor, heads)[0].prior == 30);
    heads.conf[30 * 5] = std::numeric_limits<float>::infinity();
    CHECK(detect(postprocessor, heads)[0].prior == 2);
}

TEST_CASE("no more detections than the contract allows, best first") {
    Postprocessor postprocessor(small_contract());
    Random random(3);
    for (int round = 0; round < 50; ++round) {
        auto const many = detect(postprocessor, random_heads(random, 57, 5));
        CHECK(many.size() <= 20);
        CHECK(std::is_sorted(many.begin(), many.end(), [](auto const& a, auto const& b) {
            return a.score > b.score;
        }));
    }
    CHECK(postprocessor.capacity() >= 20);
}

TEST_CASE("heads that do not fit are refused") {
    Postprocessor postprocessor(small_contract());
    SmallHeads const heads = empty_heads();
    HeadPart part = part_of(heads);
    Heads const whole{&part, 1, ConfForm::logits, mbv3ssd::LocForm::offsets};
    CHECK_ERROR(std::invalid_argument, "no pixels", postprocessor.run(whole, {0, 1, false}));
    part.loc_size -= 1;
    CHECK_ERROR(std::invalid_argument, "loc is not 4 numbers", postprocessor.run(whole, {}));
    CHECK_ERROR(std::invalid_argument, "not in 0", postprocessor.run(Heads{}, {}));
}

TEST_CASE("candidates do not depend on the CPU's lanes") {
    Random random(4);
    for (int round = 0; round < 300; ++round) {
        std::size_t const classes = 2 + random.below(30);
        auto const form = random.below(3) == 0 ? ConfForm::probabilities : ConfForm::logits;
        double const thresholds[] = {0.0, 0.001, 0.05, 0.3, 0.9, 1.0};
        check_lanes(random, classes, form, thresholds[random.below(6)]);
    }
}
