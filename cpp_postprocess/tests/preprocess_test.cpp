#include "mbv3ssd/preprocess.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "small_model.hpp"

namespace {

using mbv3ssd::Image;
using mbv3ssd::PixelFormat;
using mbv3ssd::ResizeRule;

mbv3ssd::InputRule rule_of(std::uint32_t width, std::uint32_t height, ResizeRule resize) {
    mbv3ssd::InputRule rule;
    rule.width = width;
    rule.height = height;
    rule.resize = resize;
    return rule;
}

}  // namespace

TEST_CASE("mean and deviation are in the network's channel order") {
    mbv3ssd::InputRule rule = rule_of(1, 1, ResizeRule::cv2_u8);
    rule.mean[0] = 10;
    rule.deviation[2] = 2;
    unsigned char const pixel[] = {100, 150, 200};
    float tensor[3];
    mbv3ssd::Preprocessor(rule).run({pixel, 1, 1, PixelFormat::rgb, 0, nullptr, 0}, tensor, 3);
    CHECK(tensor[0] == 90);
    CHECK(tensor[1] == 150);
    CHECK(tensor[2] == 100);
    rule.channel_order = mbv3ssd::ChannelOrder::bgr;
    mbv3ssd::Preprocessor(rule).run({pixel, 1, 1, PixelFormat::rgb, 0, nullptr, 0}, tensor, 3);
    CHECK(tensor[0] == 190);
    CHECK(tensor[1] == 150);
    CHECK(tensor[2] == 50);
}

TEST_CASE("only the antialiased resize uses every pixel") {
    // one bright column of eight, resized to one pixel
    float tensor[3];
    std::vector<unsigned char> row(24, 0);
    row[6] = row[7] = row[8] = 240;
    Image const bright{row.data(), 8, 1, PixelFormat::rgb, 0, nullptr, 0};
    for (ResizeRule const resize : {ResizeRule::cv2_u8, ResizeRule::float_after_normalise}) {
        mbv3ssd::Preprocessor(rule_of(1, 1, resize)).run(bright, tensor, 3);
        CHECK(tensor[0] == 0);
    }
    mbv3ssd::Preprocessor(rule_of(1, 1, ResizeRule::pil_u8_antialias)).run(bright, tensor, 3);
    CHECK(tensor[0] > 20);
    CHECK(tensor[0] < 45);
}

TEST_CASE("what does not fit is refused") {
    float tensor[24];
    unsigned char const pixels[24] = {};
    Image const image{pixels, 8, 1, PixelFormat::rgb, 0, nullptr, 0};
    mbv3ssd::Preprocessor preprocessor(rule_of(4, 2, ResizeRule::cv2_u8));
    CHECK(preprocessor.tensor_size() == 24);
    CHECK_ERROR(std::invalid_argument, "3 x 2 x 4", preprocessor.run(image, tensor, 3));
    CHECK_ERROR(std::invalid_argument, "null pointer", preprocessor.run(Image{}, tensor, 24));
    CHECK_ERROR(std::invalid_argument, "no pixels",
                mbv3ssd::Preprocessor(rule_of(0, 4, ResizeRule::cv2_u8)));
}
