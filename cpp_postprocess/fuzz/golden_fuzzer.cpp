// Any bytes are a golden file or a sentence; and any body with a right checksum, too.
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
    // a sound file with some of its bytes changed: what lies deep in it is reached, too
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
