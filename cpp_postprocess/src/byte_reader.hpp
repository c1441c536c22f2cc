// Little-endian numbers from untrusted bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace mbv3ssd {

// CRC-32 as in zip and PNG (reflected polynomial 0xEDB88320).
inline std::uint32_t crc32(unsigned char const* data, std::size_t size) {
    std::uint32_t crc = 0xFFFFFFFFU;
    for (std::size_t i = 0; i < size; ++i) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1U) ^ ((crc & 1U) != 0U ? 0xEDB88320U : 0U);
        }
    }
    return ~crc;
}

// Throws Error with the text `cut_off` at a read past the end.
template <class Error>
class ByteReader {
   public:
    ByteReader(unsigned char const* data, std::size_t size, char const* cut_off)
        : data_(data), left_(size), cut_off_(cut_off) {}

    std::uint32_t whole() { return static_cast<std::uint32_t>(bytes(4)); }

    double real() {
        std::uint64_t const pattern = bytes(8);
        double value = 0.0;
        std::memcpy(&value, &pattern, sizeof value);
        return value;
    }

    std::string text() {
        std::size_t const length = whole();
        need(length);
        std::string words(reinterpret_cast<char const*>(data_), length);
        skip(length);
        return words;
    }

    // Returns a count of items of at least `each` bytes, checked against the rest of the file, so that
    // no count can ask for more memory than the file's size.
    std::size_t count(std::size_t each) {
        std::size_t const things = whole();
        if (things > left_ / each) {
            throw Error(cut_off_);
        }
        return things;
    }

    [[nodiscard]] std::size_t left() const { return left_; }

   private:
    std::uint64_t bytes(std::size_t size) {
        need(size);
        std::uint64_t value = 0;
        for (std::size_t i = size; i > 0; --i) {
            value = value << 8U | data_[i - 1];
        }
        skip(size);
        return value;
    }
    void need(std::size_t size) const {
        if (size > left_) {
            throw Error(cut_off_);
        }
    }
    void skip(std::size_t size) {
        data_ += size;
        left_ -= size;
    }

    unsigned char const* data_;
    std::size_t left_;
    char const* cut_off_;
};

}  // namespace mbv3ssd
