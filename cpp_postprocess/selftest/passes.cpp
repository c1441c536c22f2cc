#include "passes.hpp"

#include <stdexcept>

#include "heads.hpp"

namespace selftest {
namespace {

std::vector<float> rows_from(ncnn::Mat const& mat) {
    auto const* const data = static_cast<float const*>(mat.data);
    return {data, data + floats_in(mat)};
}

// Planes (width x boxes per cell, rows, cols) become rows, one per prior.
void add_rows(std::vector<float>& rows, ncnn::Mat const& planes) {
    for (int y = 0; y < planes.h; ++y) {
        for (int x = 0; x < planes.w; ++x) {
            for (int plane = 0; plane < planes.c; ++plane) {
                rows.push_back(planes.channel(plane).row(y)[x]);
            }
        }
    }
}

std::vector<mbv3ssd_detection> detections_from(Package const& package, ncnn::Mat const& rows,
                                               Picture const& picture) {
    std::size_t const row_count = rows.empty() ? 0 : static_cast<std::size_t>(rows.h);
    std::vector<mbv3ssd_detection> found(row_count);
    std::size_t count = 0;
    check(mbv3ssd_read_detection_out(package.detector.get(), static_cast<float const*>(rows.data),
                                     row_count, static_cast<std::size_t>(rows.w),
                                     static_cast<float>(picture.width),
                                     static_cast<float>(picture.height), found.data(),
                                     found.size(), &count));
    found.resize(count);
    return found;
}

// Contract, golden file and network may be of different models.
void need_fitting(Package const& package, InputSize const& made_for) {
    check_input(made_for, package.about.input_width, package.about.input_height);
    Golden const& golden = package.golden;
    if (golden.input_width != package.about.input_width ||
        golden.input_height != package.about.input_height) {
        throw std::runtime_error("the golden tensor is of another size than the contract's input");
    }
}

}  // namespace

Network::Network(Package const& package, std::string const& arithmetic, int threads)
    : package_(package) {
    set_arithmetic(net_.opt, arithmetic);
    net_.opt.num_threads = threads;
    load_net(net_, package.folder + "/" + package.golden.param,
             package.folder + "/" + package.golden.bin);
    whole_ = gives(net_, "detection_out");
    made_for_ = input_size_of(package.folder + "/" + package.golden.param);
}

Output Network::run(std::vector<float> const& tensor, Picture const& picture) const {
    need_fitting(package_, made_for_);
    ncnn::Extractor extractor = net_.create_extractor();
    extractor.set_light_mode(false);  // else a blob that was extracted cannot be used again
    feed(extractor, "input", mat_from_tensor(tensor, package_.about));
    Heads const heads = extract_heads(extractor, net_, package_.about);
    Output output;
    for (std::size_t part = 0; part < heads.parts.size(); ++part) {
        ncnn::Mat const& loc = heads.blobs[2 * part];
        ncnn::Mat const& conf = heads.blobs[2 * part + 1];
        if (heads.parts[part].layout == MBV3SSD_PLANES) {
            add_rows(output.loc, loc);
            add_rows(output.conf, conf);
        } else {
            output.loc = rows_from(loc);
            output.conf = rows_from(conf);
        }
    }
    if (whole_) {
        output.priorbox = rows_from(extract(extractor, "mbox_priorbox"));
        output.detection_out =
            detections_from(package_, extract(extractor, "detection_out"), picture);
    }
    return output;
}

void Network::run_as_shipped(std::vector<float> const& tensor) const {
    need_fitting(package_, made_for_);
    ncnn::Extractor extractor = net_.create_extractor();
    feed(extractor, "input", mat_from_tensor(tensor, package_.about));
    if (whole_) {
        static_cast<void>(extract(extractor, "detection_out"));
    } else {
        static_cast<void>(extract_heads(extractor, net_, package_.about));
    }
}

std::vector<float> tensor_from(Package const& package, Picture const& picture) {
    std::vector<float> tensor(std::size_t{3} * package.about.input_height *
                              package.about.input_width);
    mbv3ssd_image const image = picture.view();
    check(mbv3ssd_preprocess(package.detector.get(), &image, tensor.data(), tensor.size()));
    return tensor;
}

std::vector<mbv3ssd_detection> boxes_from(Package const& package, std::vector<float> const& loc,
                                          std::vector<float> const& conf, std::uint32_t width,
                                          std::uint32_t height) {
    mbv3ssd_head const head{loc.data(), conf.data(),      loc.size(), conf.size(),
                            MBV3SSD_ROWS, 0, 0};
    std::vector<mbv3ssd_detection> found(package.about.max_detections);
    std::size_t count = 0;
    check(mbv3ssd_postprocess(package.detector.get(), &head, 1, static_cast<float>(width),
                              static_cast<float>(height), found.data(), found.size(), &count));
    found.resize(count);
    return found;
}

}  // namespace selftest
