// The whole network in ncnn: `detection_out` holds boxes already.
//
//     detect_ncnn model.ncnn.param model.ncnn.bin model.mbv3c picture.ppm [fp32|fp16s|fp16|bf16]
#include <exception>
#include <iostream>

#include "network.hpp"
#include "output.hpp"
#include "picture.hpp"

namespace {

void detect(int argc, char const* const* argv) {
    Detector const detector = open_detector(argv[3]);
    mbv3ssd_description const about = describe(detector);
    Picture const picture = read_picture(argv[4]);
    ncnn::Net net;
    set_arithmetic(net.opt, argc > 5 ? argv[5] : "fp16");
    load_net(net, argv[1], argv[2]);
    check_input(input_size_of(argv[1]), about.input_width, about.input_height);

    mbv3ssd_image const image = picture.view();
    std::vector<float> tensor(std::size_t{3} * about.input_height * about.input_width);
    check(mbv3ssd_preprocess(detector.get(), &image, tensor.data(), tensor.size()));

    ncnn::Extractor extractor = net.create_extractor();
    feed(extractor, "input", mat_from_tensor(tensor, about));
    ncnn::Mat const rows = extract(extractor, "detection_out");  // empty if nothing was found

    std::size_t const row_count = rows.empty() ? 0 : static_cast<std::size_t>(rows.h);
    std::vector<mbv3ssd_detection> found(row_count);
    std::size_t count = 0;
    check(mbv3ssd_read_detection_out(detector.get(), static_cast<float const*>(rows.data),
                                     row_count, static_cast<std::size_t>(rows.w),
                                     static_cast<float>(picture.width),
                                     static_cast<float>(picture.height), found.data(),
                                     found.size(), &count));
    print_detections(detector.get(), found, count);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5 || argc > 6) {
        std::cerr << "usage: detect_ncnn PARAM BIN CONTRACT PICTURE.ppm [ARITHMETIC]\n";
        return 2;
    }
    try {
        detect(argc, argv);
    } catch (std::exception const& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
