// A golden file of a small network: 2 priors, 3 classes, an input of 2 x 1, one image.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "file_bytes.hpp"
#include "golden.hpp"

inline selftest::Golden small_golden() {
    selftest::Golden golden;
    golden.name = "small";
    golden.made_by = "a test";
    golden.input_width = 2;
    golden.input_height = 1;
    golden.priors = 2;
    golden.classes = 3;
    golden.deviation = {1, 2, 3};
    golden.param = "a.param";
    golden.bin = "a.bin";
    golden.contract = "a.mbv3c";
    for (char const* name : {"a.param", "a.bin", "a.mbv3c", "image.ppm"}) {
        golden.files.push_back({name, 5, {1, 2, 3}});
    }
    golden.exact = {1, 1e-6, 1e-3};
    golden.limits = {{"fp32", 1e-4, 1e-6, 0.99, 0.98, 0.002, 0.02},
                     {"bf16", 0.25, 4e-3, 0.5, 0.7, 0.3, 0.1}};
    selftest::GoldenImage image;
    image.file = "image.ppm";
    image.width = 4;
    image.height = 3;
    image.tensor = {1, 2, 3, 4, 5, 6};
    image.loc = {0, 1, 2, 3, 4, 5, 6, 7};
    image.conf = {0, 1, 2, 3, 4, 5};
    image.own = {0.01, {{1, 0.5F, 0, 0, 2, 2}, {2, 0.25F, 1, 1, 3, 3}}};
    image.detection_out = {0.3, {{1, 0.5F, 0, 0, 2, 2}}};
    golden.images = {image};
    return golden;
}

// The bytes that mbv3ssd_deploy/device/golden.py writes.
class GoldenBytes : public FileBytes {
   public:
    explicit GoldenBytes(selftest::Golden const& golden) {
        text(golden.name);
        text(golden.made_by);
        whole(static_cast<std::uint32_t>(golden.outputs));
        whole(golden.input_width);
        whole(golden.input_height);
        whole(golden.priors);
        whole(golden.classes);
        for (double const deviation : golden.deviation) {
            real(deviation);
        }
        text(golden.param);
        text(golden.bin);
        text(golden.contract);
        put_files(golden.files);
        real(golden.exact.levels);
        real(golden.exact.score);
        real(golden.exact.pixels);
        put_limits(golden.limits);
        whole(static_cast<std::uint32_t>(golden.images.size()));
        for (selftest::GoldenImage const& image : golden.images) {
            put_image(image);
        }
    }

    [[nodiscard]] std::vector<unsigned char> sealed(std::uint32_t version = 1) const {
        return seal(bytes(), version);
    }

    static std::vector<unsigned char> seal(std::vector<unsigned char> const& body,
                                           std::uint32_t version = 1) {
        return FileBytes::seal("MBV3SSDG", body, version);
    }

   private:
    void put_files(std::vector<selftest::GoldenFile> const& files) {
        whole(static_cast<std::uint32_t>(files.size()));
        for (selftest::GoldenFile const& file : files) {
            text(file.name);
            whole(file.size);
            for (std::size_t i = 0; i < file.sha256.size(); i += 4) {
                whole(file.sha256[i] | static_cast<std::uint32_t>(file.sha256[i + 1]) << 8U |
                      static_cast<std::uint32_t>(file.sha256[i + 2]) << 16U |
                      static_cast<std::uint32_t>(file.sha256[i + 3]) << 24U);
            }
        }
    }
    void put_limits(std::vector<selftest::Limits> const& limits) {
        whole(static_cast<std::uint32_t>(limits.size()));
        for (selftest::Limits const& row : limits) {
            text(row.arithmetic);
            for (double const limit : {row.heads, row.priors, row.box_iou, row.box_share,
                                       row.box_score, row.margin}) {
                real(limit);
            }
        }
    }
    void put_floats(std::vector<float> const& values) {
        for (float const value : values) {
            small(value);
        }
    }
    void put_boxes(selftest::GoldenBoxes const& list) {
        real(list.cut);
        whole(static_cast<std::uint32_t>(list.boxes.size()));
        for (selftest::GoldenBox const& box : list.boxes) {
            whole(box.label);
            put_floats({box.score, box.x_min, box.y_min, box.x_max, box.y_max});
        }
    }
    void put_image(selftest::GoldenImage const& image) {
        text(image.file);
        whole(image.width);
        whole(image.height);
        put_floats(image.tensor);
        put_floats(image.loc);
        put_floats(image.conf);
        put_boxes(image.own);
        put_boxes(image.detection_out);
    }
};
