#include "golden.hpp"

#include <limits>
#include <string>

#include "check.hpp"
#include "sha256.hpp"
#include "small_golden.hpp"

namespace {

using selftest::Golden;
using selftest::GoldenError;
using selftest::parse_golden;

template <class Change>
void check_refused(char const* words, Change change) {
    Golden golden = small_golden();
    change(golden);
    auto const bytes = GoldenBytes(golden).sealed();
    CHECK_ERROR(GoldenError, words, parse_golden(bytes.data(), bytes.size()));
}

}  // namespace

TEST_CASE("damaged files are refused") {
    auto const bytes = GoldenBytes(small_golden()).sealed();
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        CHECK_ERROR(GoldenError, size < 20 ? "not a golden file" : "cut off",
                    parse_golden(bytes.data(), size));
    }
    // cut off, and then given a right header again
    auto const body = GoldenBytes(small_golden()).bytes();
    for (std::size_t size = 0; size < body.size(); ++size) {
        auto const sealed = GoldenBytes::seal({body.begin(), body.begin() +
                                                                 static_cast<std::ptrdiff_t>(size)});
        CHECK_ERROR(GoldenError, "golden file", parse_golden(sealed.data(), sealed.size()));
    }
    auto longer = body;
    longer.push_back(0);
    auto const sealed = GoldenBytes::seal(longer);
    CHECK_ERROR(GoldenError, "trailing bytes", parse_golden(sealed.data(), sealed.size()));
    auto flipped = bytes;
    flipped[100] ^= 1U;
    CHECK_ERROR(GoldenError, "damaged", parse_golden(flipped.data(), flipped.size()));
    auto const newer = GoldenBytes(small_golden()).sealed(2);
    CHECK_ERROR(GoldenError, "has version 2", parse_golden(newer.data(), newer.size()));
    CHECK_ERROR(GoldenError, "null pointer", parse_golden(nullptr, 7));
}

TEST_CASE("sha256 gives the examples of FIPS 180-4") {
    auto const of = [](std::string const& words) {
        auto const* const data = reinterpret_cast<unsigned char const*>(words.data());
        return selftest::hex_of(selftest::sha256_of(data, words.size()));
    };
    CHECK(of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(of(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a golden file is read as it was written") {
    auto const bytes = GoldenBytes(small_golden()).sealed();
    Golden const read = parse_golden(bytes.data(), bytes.size());
    CHECK(read.name == "small");
    CHECK(read.made_by == "a test");
    CHECK(read.priors == 2);
    REQUIRE(read.files.size() == 4);
    CHECK(read.files[1].name == "a.bin");
    CHECK(read.files[1].size == 5);
    CHECK(read.files[1].sha256 == small_golden().files[1].sha256);
    CHECK(read.limits_of("bf16")->box_share == 0.7);
    CHECK(read.limits_of("int8") == nullptr);
    CHECK(read.exact.pixels == 1e-3);
    CHECK(read.images[0].conf == small_golden().images[0].conf);
    CHECK(read.images[0].own.boxes[1].label == 2);
    CHECK(read.images[0].own.boxes[1].x_max == 3);
    CHECK(read.images[0].detection_out.cut == 0.3);
}

TEST_CASE("every value is checked") {
    double const nan = std::numeric_limits<double>::quiet_NaN();
    float const infinite = std::numeric_limits<float>::infinity();
    check_refused("not beside it", [](Golden& g) { g.param = g.files[0].name = "../a.param"; });
    check_refused("not beside it", [](Golden& g) { g.images[0].file = "/etc/passwd"; });
    check_refused("not beside it", [](Golden& g) { g.files[3].name = ""; });
    check_refused("not beside it", [](Golden& g) { g.files[3].name = std::string("a\0b", 3); });
    check_refused("no hash of the model's files", [](Golden& g) { g.bin = "b.bin"; });
    check_refused("form of outputs", [](Golden& g) {
        g.outputs = static_cast<selftest::Outputs>(3);
    });
    check_refused("impossible size", [](Golden& g) { g.input_width = 0; });
    check_refused("impossible size", [](Golden& g) { g.classes = 1; });
    check_refused("impossible size", [](Golden& g) { g.priors = ~0U; });
    check_refused("cut off", [](Golden& g) { g.priors = 1U << 20U; });
    check_refused("standard deviation", [](Golden& g) { g.deviation[1] = 0; });
    check_refused("limit", [&](Golden& g) { g.limits[1].heads = nan; });
    check_refused("limit", [](Golden& g) { g.limits[0].box_iou = 1.5; });
    check_refused("limit", [](Golden& g) { g.exact.score = -1; });
    check_refused("no image", [](Golden& g) { g.images.clear(); });
    check_refused("image of no size", [](Golden& g) { g.images[0].height = 0; });
    check_refused("label", [](Golden& g) { g.images[0].own.boxes[0].label = 3; });
    check_refused("label", [](Golden& g) { g.images[0].own.boxes[0].label = 0; });
    check_refused("box that is not finite", [&](Golden& g) {
        g.images[0].own.boxes[0].x_max = infinite;
    });
    check_refused("outside 0..1", [&](Golden& g) { g.images[0].own.cut = nan; });
}
