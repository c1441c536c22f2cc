// body.onnx in ONNX Runtime, everything else from this library.
//
//     detect_onnxruntime body.onnx model.mbv3c picture.ppm
#define ORT_API_MANUAL_INIT  // so that use_runtime() can report an older library
#include <onnxruntime_cxx_api.h>

#include <array>
#include <exception>
#include <filesystem>
#include <iostream>

#include "detector.hpp"
#include "output.hpp"
#include "picture.hpp"

namespace {

// A runtime knows the interfaces of its own and of older headers.
void use_runtime() {
    OrtApi const* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (api == nullptr) {
        throw std::runtime_error(std::string("ONNX Runtime ") +
                                 OrtGetApiBase()->GetVersionString() +
                                 " is older than the headers that this program was built with");
    }
    Ort::InitApi(api);
}

Ort::Value tensor_view(std::vector<float>& tensor, mbv3ssd_description const& about) {
    std::array<std::int64_t, 4> const shape = {1, 3, about.input_height, about.input_width};
    auto const memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
    return Ort::Value::CreateTensor<float>(memory, tensor.data(), tensor.size(), shape.data(),
                                           shape.size());
}

mbv3ssd_head head_view(Ort::Value const& loc, Ort::Value const& conf) {
    return {loc.GetTensorData<float>(),
            conf.GetTensorData<float>(),
            loc.GetTensorTypeAndShapeInfo().GetElementCount(),
            conf.GetTensorTypeAndShapeInfo().GetElementCount(),
            MBV3SSD_ROWS,
            0,
            0};
}

void detect(char const* body, char const* contract, char const* photo) {
    Detector const detector = open_detector(contract);
    mbv3ssd_description const about = describe(detector);
    Picture const picture = read_picture(photo);
    use_runtime();
    Ort::Env const env(ORT_LOGGING_LEVEL_WARNING, "detect_onnxruntime");
    Ort::Session session(env, std::filesystem::path(body).c_str(), Ort::SessionOptions{});

    mbv3ssd_image const image = picture.view();
    std::vector<float> tensor(std::size_t{3} * about.input_height * about.input_width);
    check(mbv3ssd_preprocess(detector.get(), &image, tensor.data(), tensor.size()));

    std::array<char const*, 1> const inputs = {"input"};
    std::array<char const*, 2> const outputs = {"loc", "conf"};
    Ort::Value const input = tensor_view(tensor, about);
    std::vector<Ort::Value> const given =
        session.Run(Ort::RunOptions{}, inputs.data(), &input, 1, outputs.data(), outputs.size());
    mbv3ssd_head const head = head_view(given[0], given[1]);

    std::vector<mbv3ssd_detection> found(about.max_detections);
    std::size_t count = 0;
    check(mbv3ssd_postprocess(detector.get(), &head, 1, static_cast<float>(picture.width),
                              static_cast<float>(picture.height), found.data(), found.size(),
                              &count));
    print_detections(detector.get(), found, count);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: detect_onnxruntime BODY.onnx CONTRACT PICTURE.ppm\n";
        return 2;
    }
    try {
        detect(argv[1], argv[2], argv[3]);
    } catch (std::exception const& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
