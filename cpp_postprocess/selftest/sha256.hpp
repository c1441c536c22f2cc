// SHA-256, by FIPS 180-4.
#pragma once

#include <cstddef>
#include <string>

#include "golden.hpp"

namespace selftest {

[[nodiscard]] Sha256 sha256_of(unsigned char const* data, std::size_t size);

// Returns the usual 64 hexadecimal digits.
[[nodiscard]] std::string hex_of(Sha256 const& digest);

}  // namespace selftest
