#include <cstdio>
#include <vector>

#include "mbv3ssd/c_api.h"

// What runs between the two calls: your inference engine. Here it finds one object.
static void run_network(std::vector<float> const& tensor, std::vector<float>& loc,
                        std::vector<float>& conf, std::size_t classes) {
    for (float& number : loc) {
        number = tensor[0] * 0.0F;
    }
    for (std::size_t i = 0; i < conf.size(); ++i) {
        conf[i] = i % classes == 0 ? 10.0F : 0.0F;
    }
    conf[1] = 15.0F;
}

int main(int argc, char** argv) {
    // README begins
    mbv3ssd_detector* detector = nullptr;
    if (argc < 2 || mbv3ssd_open(argv[1], &detector) != MBV3SSD_OK) {
        std::fprintf(stderr, "%s\n", mbv3ssd_last_error());
        return 1;
    }
    mbv3ssd_description about;
    mbv3ssd_describe(detector, &about);
    std::vector<unsigned char> pixels(640 * 480 * 3, 128);  // from your camera
    mbv3ssd_image image{pixels.data(), 640, 480, MBV3SSD_BGR, 640 * 3, nullptr, 0};
    std::vector<float> tensor(3 * about.input_height * about.input_width);
    mbv3ssd_preprocess(detector, &image, tensor.data(), tensor.size());

    std::vector<float> loc(about.prior_count * 4), conf(about.prior_count * about.class_count);
    run_network(tensor, loc, conf, about.class_count);  // any engine: body.onnx, --raw-heads, ...

    mbv3ssd_head head{loc.data(), conf.data(), loc.size(), conf.size(), MBV3SSD_ROWS, 0, 0};
    std::vector<mbv3ssd_detection> found(about.max_detections);
    std::size_t count = 0;
    if (mbv3ssd_postprocess(detector, &head, 1, 640, 480, found.data(), found.size(), &count)) {
        std::fprintf(stderr, "%s\n", mbv3ssd_last_error());
    }
    for (std::size_t i = 0; i < count; ++i) {
        std::printf("%s %.2f at %.0f, %.0f\n", mbv3ssd_class_name(detector, found[i].label),
                    found[i].score, found[i].x_min, found[i].y_min);
    }
    mbv3ssd_close(detector);
    // README ends
}
