#include "mbv3ssd/priors.hpp"

#include "check.hpp"
#include "small_model.hpp"

namespace {

bool is(mbv3ssd::Prior const& prior, float x, float y, float width, float height) {
    return prior.x == x && prior.y == y && prior.width == width && prior.height == height;
}

mbv3ssd::PriorTable small_table() {
    mbv3ssd::PriorTable table;
    table.frame_width = table.frame_height = 8;
    return table;
}

}  // namespace

TEST_CASE("priors of a cell, cell by cell") {
    mbv3ssd::PriorTable table = small_table();
    table.levels = {{1, 2, 4, 8, 2, 8, {4.0}}};

    auto priors = mbv3ssd::build_priors(table);
    REQUIRE(priors.size() == 6);
    CHECK(is(priors[0], 0.25F, 0.5F, 0.25F, 0.25F));  // the small square
    CHECK(is(priors[1], 0.25F, 0.5F, 0.5F, 0.5F));    // sqrt(2 * 8) = 4
    CHECK(is(priors[2], 0.25F, 0.5F, 0.5F, 0.125F));  // twice as wide, half as high
    CHECK(is(priors[3], 0.75F, 0.5F, 0.25F, 0.25F));  // the next column
}

TEST_CASE("clip rules and rounding") {
    using mbv3ssd::ClipRule;
    mbv3ssd::PriorTable table = small_table();
    table.levels = {{1, 1, 2, 2, 12, 0, {}}};  // centre at 1/8, 12/8 wide
    table.clip = ClipRule::sizes;
    CHECK(is(mbv3ssd::build_priors(table)[0], 0.125F, 0.125F, 1.0F, 1.0F));
    table.clip = ClipRule::corners;  // from -5/8 .. 7/8 to 0 .. 7/8
    CHECK(is(mbv3ssd::build_priors(table)[0], 0.4375F, 0.4375F, 0.875F, 0.875F));
    table.levels[0].step_x = 24;  // centre at 12/8
    table.clip = ClipRule::centre_form;
    CHECK(is(mbv3ssd::build_priors(table)[0], 1.0F, 0.125F, 1.0F, 1.0F));

    // centre 2, 3 wide: pixels rint(0.5) = 0 to rint(2.5) = 2, half to even: 3 wide about 1.5
    table.clip = ClipRule::none;
    table.rounding = mbv3ssd::PriorRounding::pixel_corners;
    table.levels = {{1, 1, 4, 4, 3, 0, {}}};
    CHECK(is(mbv3ssd::build_priors(table)[0], 0.1875F, 0.1875F, 0.375F, 0.375F));
}
