// Any image gives a tensor within 0..255, or a clean error.
#include <stdexcept>

#include "input.hpp"
#include "mbv3ssd/preprocess.hpp"

namespace {

constexpr std::uint32_t most = 40;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    Input input(data, size);
    mbv3ssd::InputRule rule;
    rule.width = 1 + input.below(most);
    rule.height = 1 + input.below(most);
    rule.resize = static_cast<mbv3ssd::ResizeRule>(input.below(3));
    rule.channel_order = static_cast<mbv3ssd::ChannelOrder>(input.below(2));

    mbv3ssd::Image image;
    image.width = input.below(most);
    image.height = input.below(most);
    image.format = static_cast<mbv3ssd::PixelFormat>(input.below(7));
    image.stride = input.below(5 * most);
    image.chroma_stride = input.below(2 * most);
    std::size_t const close = image.width * (image.format < mbv3ssd::PixelFormat::rgba     ? 3U
                                             : image.format < mbv3ssd::PixelFormat::grey ? 4U
                                                                                         : 1U);
    // exactly the bytes that such an image has: the last row ends where its pixels do
    auto const bytes_of = [&](std::size_t stride, std::size_t row, std::size_t rows) {
        std::size_t const step = stride == 0 ? row : stride;
        std::vector<unsigned char> bytes(rows == 0 ? 0 : step * (rows - 1) + row);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = input.left() == 0 ? static_cast<unsigned char>(i * 37)
                                         : input.rest()[i % input.left()];
        }
        return bytes;
    };
    std::vector<unsigned char> const pixels = bytes_of(image.stride, close, image.height);
    std::size_t const pairs = (std::size_t{image.width} + 1) / 2 * 2;
    std::vector<unsigned char> const chroma =
        bytes_of(image.chroma_stride, pairs, (image.height + 1) / 2);
    image.pixels = pixels.data();
    image.chroma = chroma.data();

    mbv3ssd::Preprocessor preprocessor(rule);
    std::vector<float> tensor(preprocessor.tensor_size());
    try {
        for (int round = 0; round < 2; ++round) {
            preprocessor.run(image, tensor.data(), tensor.size());
            for (float const level : tensor) {
                must(level >= 0.0F && level < 255.01F);  // weights may add up to a hair above 1
            }
        }
    } catch (std::invalid_argument const& error) {
        must(error.what()[0] != '\0');
    }
    return 0;
}
