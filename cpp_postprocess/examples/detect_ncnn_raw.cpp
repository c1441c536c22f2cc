// Heads from ncnn, everything else from this library: the family's own rules, and thresholds that
// may change from frame to frame. The network may be whole (its tail is then not computed) or made
// with `to-ncnn --raw-heads`.
//
//     detect_ncnn_raw model.ncnn.param model.ncnn.bin model.mbv3c picture.ppm [ARITHMETIC]
#include <exception>
#include <iostream>

#include "heads.hpp"
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
    Heads const heads = extract_heads(extractor, net, about);

    std::vector<mbv3ssd_detection> found(about.max_detections);
    std::size_t count = 0;
    check(mbv3ssd_postprocess(detector.get(), heads.parts.data(), heads.parts.size(),
                              static_cast<float>(picture.width),
                              static_cast<float>(picture.height), found.data(), found.size(),
                              &count));
    print_detections(detector.get(), found, count);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5 || argc > 6) {
        std::cerr << "usage: detect_ncnn_raw PARAM BIN CONTRACT PICTURE.ppm [ARITHMETIC]\n";
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
