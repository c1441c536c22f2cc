// One line per detection: name, score, corners in pixels.
#pragma once

#include <cstdio>
#include <vector>

#include "mbv3ssd/c_api.h"

inline void print_detections(mbv3ssd_detector const* detector,
                             std::vector<mbv3ssd_detection> const& found, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        mbv3ssd_detection const& one = found[i];
        std::printf("%s %.6f %.3f %.3f %.3f %.3f\n", mbv3ssd_class_name(detector, one.label),
                    static_cast<double>(one.score), static_cast<double>(one.x_min),
                    static_cast<double>(one.y_min), static_cast<double>(one.x_max),
                    static_cast<double>(one.y_max));
    }
}
