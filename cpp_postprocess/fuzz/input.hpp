// Numbers from a fuzzer's bytes; 0 after the last byte.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

class Input {
   public:
    Input(std::uint8_t const* data, std::size_t size) : data_(data), left_(size) {}

    std::uint32_t whole() {
        std::uint32_t value = 0;
        take(&value, sizeof value);
        return value;
    }
    std::uint32_t below(std::uint32_t end) { return whole() % end; }
    float any_float() {
        float value = 0.0F;
        take(&value, sizeof value);
        return value;
    }
    // `count` floats: bytes as they are, then the last ones again and again.
    std::vector<float> floats(std::size_t count) {
        std::vector<float> values(count, 0.0F);
        std::size_t const given = std::min(count, left_ / sizeof(float));
        take(values.data(), given * sizeof(float));
        for (std::size_t i = given; given != 0 && i < count; ++i) {
            values[i] = values[i - given];
        }
        return values;
    }
    [[nodiscard]] std::size_t left() const { return left_; }
    [[nodiscard]] std::uint8_t const* rest() const { return data_; }

   private:
    void take(void* to, std::size_t size) {
        std::size_t const given = std::min(size, left_);
        if (given != 0) {
            std::memcpy(to, data_, given);
        }
        data_ += given;
        left_ -= given;
    }

    std::uint8_t const* data_;
    std::size_t left_;
};

// Aborts the program if a condition does not hold.
inline void must(bool condition) {
    if (!condition) {
        __builtin_trap();
    }
}
