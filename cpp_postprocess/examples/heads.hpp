// Raw heads from ncnn, for every form of outputs.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "network.hpp"

struct Heads {
    std::vector<ncnn::Mat> blobs;  // own the memory that `parts` point to
    std::vector<mbv3ssd_head> parts;
};

inline bool gives(ncnn::Net const& net, std::string const& blob) {
    return std::any_of(net.blobs().begin(), net.blobs().end(),
                       [&](ncnn::Blob const& one) { return one.name == blob; });
}

inline std::size_t floats_in(ncnn::Mat const& mat) {
    return mat.dims == 3 ? mat.cstep * static_cast<std::size_t>(mat.c)
                         : static_cast<std::size_t>(mat.w) * static_cast<std::size_t>(mat.h);
}

inline void add_part(Heads& heads, ncnn::Extractor& extractor, std::string const& loc_name,
                     std::string const& conf_name, mbv3ssd_layout layout) {
    ncnn::Mat const loc = extract(extractor, loc_name);
    ncnn::Mat const conf = extract(extractor, conf_name);
    bool const planes = layout == MBV3SSD_PLANES;
    heads.blobs.push_back(loc);
    heads.blobs.push_back(conf);
    heads.parts.push_back({static_cast<float const*>(loc.data),
                           static_cast<float const*>(conf.data), floats_in(loc), floats_in(conf),
                           static_cast<uint32_t>(layout), planes ? loc.cstep : 0,
                           planes ? conf.cstep : 0});
}

// A whole network has mbox_loc and mbox_conf, one with raw heads loc and conf, or loc_0, conf_0, ...
inline Heads extract_heads(ncnn::Extractor& extractor, ncnn::Net const& net,
                           mbv3ssd_description const& about) {
    Heads heads;
    if (gives(net, "mbox_loc")) {
        add_part(heads, extractor, "mbox_loc", "mbox_conf", MBV3SSD_ROWS);
    } else if (gives(net, "loc")) {
        add_part(heads, extractor, "loc", "conf", MBV3SSD_ROWS);
    } else {
        for (std::uint32_t level = 0; level < about.level_count; ++level) {
            std::string const index = std::to_string(level);
            add_part(heads, extractor, "loc_" + index, "conf_" + index, MBV3SSD_PLANES);
        }
    }
    return heads;
}
