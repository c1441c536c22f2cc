// A fuzzer without libFuzzer: FUZZER [SECONDS [SEED]]. Random bytes, floats in the range of heads,
// and mutations of earlier inputs. It does not use coverage; the sanitizers find the errors.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "random.hpp"
#include "small_model.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes random_bytes(Random& random) {
    Bytes bytes(random.below(600));
    for (std::uint8_t& byte : bytes) {
        byte = static_cast<std::uint8_t>(random.whole());
    }
    return bytes;
}

Bytes random_floats(Random& random) {
    Bytes bytes = random_bytes(random);
    for (std::size_t at = 0; at + 4 <= bytes.size(); at += 4) {
        float const value = random.between(-8.0F, 8.0F);
        std::memcpy(&bytes[at], &value, sizeof value);
    }
    return bytes;
}

// The body of a valid contract: the fuzzers of the other two read it as numbers.
Bytes sound_body() {
    auto const file = ContractBytes(small_contract()).sealed();
    return {file.begin() + 20, file.end()};
}

void mutate(Bytes& bytes, Random& random) {
    std::uint32_t const words[] = {0, 1, 0xFFFFFFFFU, 0x7F800000U, 0x7FC00000U, 0x80000000U};
    for (std::uint32_t round = random.below(6); round > 0 && bytes.size() >= 8; --round) {
        std::size_t const at = random.below(static_cast<std::uint32_t>(bytes.size() - 4));
        switch (random.below(4)) {
            case 0:
                bytes[at] = static_cast<std::uint8_t>(random.whole());
                break;
            case 1:
                std::memcpy(&bytes[at], &words[random.below(6)], 4);
                break;
            case 2:
                bytes.resize(at);
                break;
            default:
                bytes.insert(bytes.end(), bytes.begin(), bytes.begin() + static_cast<long>(at));
                bytes.resize(bytes.size() < 4096 ? bytes.size() : 4096);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    double const seconds = argc > 1 ? std::atof(argv[1]) : 5.0;
    Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
    auto const end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::vector<Bytes> pool{sound_body()};
    unsigned long runs = 0;
    for (; std::chrono::steady_clock::now() < end; ++runs) {
        Bytes bytes;
        switch (random.below(4)) {
            case 0:
                bytes = random_bytes(random);
                break;
            case 1:
                bytes = random_floats(random);
                break;
            default:
                bytes = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
                mutate(bytes, random);
        }
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
        if (pool.size() < 256) {
            pool.push_back(bytes);
        } else if (random.below(8) == 0) {
            pool[1 + random.below(255)] = bytes;
        }
    }
    std::printf("%lu runs without a finding\n", runs);
}
