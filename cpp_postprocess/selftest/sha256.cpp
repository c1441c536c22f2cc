#include "sha256.hpp"

#include <cstdint>
#include <cstring>

namespace selftest {
namespace {

// the first 32 bits of the fractional parts of the cube roots of the first 64 primes
constexpr std::uint32_t round_constants[64] = {
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
};

// the same for the square roots of the first 8
constexpr std::array<std::uint32_t, 8> first_state = {
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
};

std::uint32_t rotated(std::uint32_t value, unsigned bits) {
    return value >> bits | value << (32U - bits);
}

void take_block(std::array<std::uint32_t, 8>& state, unsigned char const* block) {
    std::uint32_t words[64];
    for (std::size_t i = 0; i < 16; ++i) {
        words[i] = static_cast<std::uint32_t>(block[4 * i]) << 24U |
                   static_cast<std::uint32_t>(block[4 * i + 1]) << 16U |
                   static_cast<std::uint32_t>(block[4 * i + 2]) << 8U | block[4 * i + 3];
    }
    for (std::size_t i = 16; i < 64; ++i) {
        std::uint32_t const before = words[i - 15];
        std::uint32_t const near = words[i - 2];
        words[i] = words[i - 16] + words[i - 7] +
                   (rotated(before, 7) ^ rotated(before, 18) ^ before >> 3U) +
                   (rotated(near, 17) ^ rotated(near, 19) ^ near >> 10U);
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (std::size_t i = 0; i < 64; ++i) {
        std::uint32_t const first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
                                    ((e & f) ^ (~e & g)) + round_constants[i] + words[i];
        std::uint32_t const second =
            (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + second;
    }
    std::uint32_t const mixed[8] = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) {
        state[i] += mixed[i];
    }
}

}  // namespace

Sha256 sha256_of(unsigned char const* data, std::size_t size) {
    std::array<std::uint32_t, 8> state = first_state;
    std::size_t const whole = size / 64 * 64;
    for (std::size_t at = 0; at < whole; at += 64) {
        take_block(state, data + at);
    }
    // a single 1 bit, zeros, and the length in bits
    unsigned char end[128] = {};
    std::size_t const rest = size - whole;
    if (rest != 0) {
        std::memcpy(end, data + whole, rest);
    }
    end[rest] = 0x80;
    std::size_t const length = rest < 56 ? 64 : 128;
    std::uint64_t const bits = std::uint64_t{size} * 8;
    for (std::size_t i = 0; i < 8; ++i) {
        end[length - 1 - i] = static_cast<unsigned char>(bits >> (8 * i) & 0xFFU);
    }
    for (std::size_t at = 0; at < length; at += 64) {
        take_block(state, end + at);
    }
    Sha256 digest{};
    for (std::size_t i = 0; i < digest.size(); ++i) {
        digest[i] = static_cast<unsigned char>(state[i / 4] >> (24 - 8 * (i % 4)) & 0xFFU);
    }
    return digest;
}

std::string hex_of(Sha256 const& digest) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (unsigned char const byte : digest) {
        text += digits[byte >> 4U];
        text += digits[byte & 0xFU];
    }
    return text;
}

}  // namespace selftest
