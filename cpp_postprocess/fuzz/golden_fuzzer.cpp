// Any bytes, and any body with a correct checksum, are a golden file or a clean error.
#include "golden.hpp"
#include "input.hpp"
#include "small_golden.hpp"

namespace {

void parse(std::uint8_t const* data, std::size_t size) {
    try {
        selftest::Golden const golden = selftest::parse_golden(data, size);
        must(!golden.images.empty() && golden.images[0].loc.size() == 4 * golden.priors);
    } catch (selftest::GoldenError const& error) {
        must(error.what()[0] != '\0');
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    parse(data, size);
    auto const sealed = GoldenBytes::seal({data, data + size});
    parse(sealed.data(), sealed.size());
    // a valid file with some bytes changed, to reach the fields deep inside
    auto body = GoldenBytes(small_golden()).bytes();
    Input input(data, size);
    while (input.left() >= 8) {
        std::uint32_t const place = input.below(static_cast<std::uint32_t>(body.size()));
        body[place] = static_cast<unsigned char>(input.whole());
    }
    auto const changed = GoldenBytes::seal(body);
    parse(changed.data(), changed.size());
    return 0;
}
