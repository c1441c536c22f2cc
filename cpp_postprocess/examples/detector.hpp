// This library's half of an example: a detector, and its error text when something fails.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "mbv3ssd/c_api.h"

// Throws std::runtime_error with the library's error text.
inline void check(mbv3ssd_status status) {
    if (status != MBV3SSD_OK) {
        throw std::runtime_error(mbv3ssd_last_error());
    }
}

using Detector = std::unique_ptr<mbv3ssd_detector, void (*)(mbv3ssd_detector*)>;

inline Detector open_detector(std::string const& contract) {
    mbv3ssd_detector* detector = nullptr;
    check(mbv3ssd_open(contract.c_str(), &detector));
    return {detector, &mbv3ssd_close};
}

inline mbv3ssd_description describe(Detector const& detector) {
    mbv3ssd_description about;
    check(mbv3ssd_describe(detector.get(), &about));
    return about;
}
