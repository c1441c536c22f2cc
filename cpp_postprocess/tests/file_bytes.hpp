// The fields of our binary files, as mbv3ssd_deploy/device/contract.py writes them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

class FileBytes {
   public:
    void whole(std::uint32_t value) { append(body_, value, 4); }
    void real(double value) {
        std::uint64_t pattern = 0;
        std::memcpy(&pattern, &value, sizeof value);
        append(body_, pattern, 8);
    }
    void small(float value) {
        std::uint32_t pattern = 0;
        std::memcpy(&pattern, &value, sizeof value);
        whole(pattern);
    }
    void text(std::string const& words) {
        whole(static_cast<std::uint32_t>(words.size()));
        body_.insert(body_.end(), words.begin(), words.end());
    }

    [[nodiscard]] std::vector<unsigned char> const& bytes() const { return body_; }

    // The body under its header, with a correct checksum.
    static std::vector<unsigned char> seal(std::string const& magic,
                                           std::vector<unsigned char> const& body,
                                           std::uint32_t version) {
        std::uint32_t crc = 0xFFFFFFFFU;
        for (unsigned char const byte : body) {
            crc ^= byte;
            for (int bit = 0; bit < 8; ++bit) {
                crc = (crc >> 1U) ^ ((crc & 1U) != 0U ? 0xEDB88320U : 0U);
            }
        }
        std::vector<unsigned char> file(magic.begin(), magic.end());
        append(file, version, 4);
        append(file, body.size(), 4);
        append(file, ~crc, 4);
        file.insert(file.end(), body.begin(), body.end());
        return file;
    }

   private:
    static void append(std::vector<unsigned char>& to, std::uint64_t value, int size) {
        for (int i = 0; i < size; ++i) {
            to.push_back(static_cast<unsigned char>(value >> (8 * i) & 0xFFU));
        }
    }

    std::vector<unsigned char> body_;
};
