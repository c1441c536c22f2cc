#include "mbv3ssd/c_api.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "mbv3ssd/contract.hpp"
#include "mbv3ssd/detection_out.hpp"
#include "mbv3ssd/postprocess.hpp"
#include "mbv3ssd/preprocess.hpp"

struct mbv3ssd_detector {
    explicit mbv3ssd_detector(mbv3ssd::Contract terms)
        : contract(std::move(terms)), preprocessor(contract.input), postprocessor(contract) {
        parts.reserve(contract.priors.levels.size());
        ready.reserve(postprocessor.capacity());
    }

    mbv3ssd::Contract contract;
    mbv3ssd::Preprocessor preprocessor;
    mbv3ssd::Postprocessor postprocessor;
    std::vector<mbv3ssd::HeadPart> parts;
    std::vector<mbv3ssd::Detection> ready;  // of detection_out
    mbv3ssd::ConfForm conf = mbv3ssd::ConfForm::logits;
    mbv3ssd::LocForm loc = mbv3ssd::LocForm::offsets;
    bool clip = false;
};

namespace {

// Fixed, so that reporting a lack of memory allocates none.
thread_local char last_error[512] = "";

mbv3ssd_status failed(mbv3ssd_status status, char const* sentence) {
    static_cast<void>(std::snprintf(last_error, sizeof last_error, "%s", sentence));
    return status;
}

// Runs `work` and turns an exception into a status and an error text.
template <class Work>
mbv3ssd_status guarded(Work work) {
    try {
        return work();
    } catch (mbv3ssd::ContractVersionError const& error) {
        return failed(MBV3SSD_OTHER_VERSION, error.what());
    } catch (mbv3ssd::ContractError const& error) {
        return failed(MBV3SSD_BAD_CONTRACT, error.what());
    } catch (std::invalid_argument const& error) {
        return failed(MBV3SSD_BAD_ARGUMENT, error.what());
    } catch (std::bad_alloc const&) {
        return failed(MBV3SSD_OUT_OF_MEMORY, "there is not enough memory");
    } catch (std::length_error const&) {
        return failed(MBV3SSD_OUT_OF_MEMORY, "there is not enough memory");
    } catch (std::exception const& error) {
        return failed(MBV3SSD_BUG, error.what());
    } catch (...) {
        return failed(MBV3SSD_BUG, "an exception of unknown type was thrown");
    }
}

void need(bool condition, char const* sentence) {
    if (!condition) {
        throw std::invalid_argument(sentence);
    }
}

std::vector<unsigned char> bytes_of(std::FILE* file) {
    std::vector<unsigned char> bytes;
    unsigned char block[4096];
    // a contract is a few kilobytes: an endless file is refused
    constexpr std::size_t most = std::size_t{64} << 20U;
    std::size_t got = 0;
    do {
        got = std::fread(block, 1, sizeof block, file);
        bytes.insert(bytes.end(), block, block + got);
    } while (got == sizeof block && bytes.size() < most);
    return bytes;
}

mbv3ssd_status give(std::vector<mbv3ssd::Detection> const& found, mbv3ssd_detection* detections,
                    std::size_t room, std::size_t* count) {
    *count = found.size();
    need(detections != nullptr || room == 0, "the buffer for detections is a null pointer");
    std::size_t const given = std::min(room, found.size());
    for (std::size_t i = 0; i < given; ++i) {
        mbv3ssd::Detection const& one = found[i];
        detections[i] = {one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max,
                         one.score,     one.label,     one.prior};
    }
    return given == found.size()
               ? MBV3SSD_OK
               : failed(MBV3SSD_BUFFER_TOO_SMALL, "there are more detections than there is room");
}

mbv3ssd::HeadPart part_from(mbv3ssd_head const& head) {
    need(head.layout <= MBV3SSD_PLANES, "the layout of a head is neither rows nor planes");
    return {head.loc,
            head.conf,
            head.loc_size,
            head.conf_size,
            static_cast<mbv3ssd::HeadLayout>(head.layout),
            head.loc_plane_step,
            head.conf_plane_step};
}

}  // namespace

extern "C" {

uint32_t mbv3ssd_api_version(void) { return MBV3SSD_API_VERSION; }

const char* mbv3ssd_version(void) { return MBV3SSD_VERSION; }

const char* mbv3ssd_last_error(void) { return last_error; }

mbv3ssd_status mbv3ssd_open(const char* path, mbv3ssd_detector** detector) {
    return guarded([&] {
        need(detector != nullptr, "the place for the detector is a null pointer");
        *detector = nullptr;
        need(path != nullptr, "the path of the contract is a null pointer");
        std::unique_ptr<std::FILE, int (*)(std::FILE*)> const file(std::fopen(path, "rb"),
                                                                   std::fclose);
        if (file == nullptr) {
            return failed(MBV3SSD_CANNOT_READ, "the contract's file cannot be opened");
        }
        std::vector<unsigned char> const bytes = bytes_of(file.get());
        if (std::ferror(file.get()) != 0) {
            return failed(MBV3SSD_CANNOT_READ, "the contract's file cannot be read");
        }
        *detector = new mbv3ssd_detector(mbv3ssd::parse_contract(bytes.data(), bytes.size()));
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_open_memory(const void* contract, size_t size,
                                   mbv3ssd_detector** detector) {
    return guarded([&] {
        need(detector != nullptr, "the place for the detector is a null pointer");
        *detector = nullptr;
        *detector = new mbv3ssd_detector(mbv3ssd::parse_contract(contract, size));
        return MBV3SSD_OK;
    });
}

void mbv3ssd_close(mbv3ssd_detector* detector) { delete detector; }

mbv3ssd_status mbv3ssd_describe(const mbv3ssd_detector* detector,
                                mbv3ssd_description* description) {
    return guarded([&] {
        need(detector != nullptr && description != nullptr, "a pointer is null");
        description->input_width = detector->contract.input.width;
        description->input_height = detector->contract.input.height;
        description->class_count = static_cast<uint32_t>(detector->contract.class_names.size());
        description->prior_count = static_cast<uint32_t>(detector->postprocessor.priors().size());
        description->level_count = static_cast<uint32_t>(detector->contract.priors.levels.size());
        description->max_detections = static_cast<uint32_t>(detector->postprocessor.capacity());
        description->lanes = static_cast<uint32_t>(mbv3ssd::lanes());
        return MBV3SSD_OK;
    });
}

const char* mbv3ssd_class_name(const mbv3ssd_detector* detector, int32_t label) {
    if (detector == nullptr || label < 0 ||
        static_cast<std::size_t>(label) >= detector->contract.class_names.size()) {
        failed(MBV3SSD_BAD_ARGUMENT, "there is no class of this label");
        return nullptr;
    }
    return detector->contract.class_names[static_cast<std::size_t>(label)].c_str();
}

mbv3ssd_status mbv3ssd_get_priors(const mbv3ssd_detector* detector, float* priors, size_t count) {
    return guarded([&] {
        need(detector != nullptr && priors != nullptr, "a pointer is null");
        need(count == detector->postprocessor.priors().size(),
             "the count of priors is not that of the contract");
        for (mbv3ssd::Prior const& prior : detector->postprocessor.priors()) {
            *priors++ = prior.x;
            *priors++ = prior.y;
            *priors++ = prior.width;
            *priors++ = prior.height;
        }
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_set_priors(mbv3ssd_detector* detector, const float* priors, size_t count) {
    return guarded([&] {
        need(detector != nullptr && priors != nullptr, "a pointer is null");
        need(count == detector->postprocessor.priors().size(),
             "the count of priors is not that of the contract");
        std::vector<mbv3ssd::Prior> given(count);
        for (std::size_t i = 0; i < count; ++i) {
            given[i] = {priors[4 * i], priors[4 * i + 1], priors[4 * i + 2], priors[4 * i + 3]};
        }
        detector->postprocessor.set_priors(given.data(), count);
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_set_thresholds(mbv3ssd_detector* detector, double score, double iou) {
    return guarded([&] {
        need(detector != nullptr, "the detector is a null pointer");
        detector->postprocessor.set_thresholds(score, iou);
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_set_head_form(mbv3ssd_detector* detector, uint32_t conf, uint32_t loc) {
    return guarded([&] {
        need(detector != nullptr, "the detector is a null pointer");
        need(conf <= MBV3SSD_PROBABILITIES && loc <= MBV3SSD_CORNERS,
             "heads of this form are unknown");
        detector->conf = static_cast<mbv3ssd::ConfForm>(conf);
        detector->loc = static_cast<mbv3ssd::LocForm>(loc);
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_set_clip(mbv3ssd_detector* detector, int clip) {
    return guarded([&] {
        need(detector != nullptr, "the detector is a null pointer");
        detector->clip = clip != 0;
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_preprocess(mbv3ssd_detector* detector, const mbv3ssd_image* image,
                                  float* tensor, size_t size) {
    return guarded([&] {
        need(detector != nullptr && image != nullptr, "a pointer is null");
        need(image->format <= MBV3SSD_NV21, "the pixel format is unknown");
        mbv3ssd::Image const view{image->pixels,
                                  image->width,
                                  image->height,
                                  static_cast<mbv3ssd::PixelFormat>(image->format),
                                  image->stride,
                                  image->chroma,
                                  image->chroma_stride};
        detector->preprocessor.run(view, tensor, size);
        return MBV3SSD_OK;
    });
}

mbv3ssd_status mbv3ssd_postprocess(mbv3ssd_detector* detector, const mbv3ssd_head* heads,
                                   size_t head_count, float image_width, float image_height,
                                   mbv3ssd_detection* detections, size_t room, size_t* count) {
    return guarded([&] {
        need(detector != nullptr && heads != nullptr && count != nullptr, "a pointer is null");
        *count = 0;
        need(head_count <= detector->contract.priors.levels.size(),
             "there are more heads than levels");
        detector->parts.clear();
        for (std::size_t i = 0; i < head_count; ++i) {
            detector->parts.push_back(part_from(heads[i]));
        }
        auto const& found = detector->postprocessor.run(
            {detector->parts.data(), head_count, detector->conf, detector->loc},
            {image_width, image_height, detector->clip});
        return give(found, detections, room, count);
    });
}

mbv3ssd_status mbv3ssd_read_detection_out(mbv3ssd_detector* detector, const float* data,
                                          size_t rows, size_t step, float image_width,
                                          float image_height, mbv3ssd_detection* detections,
                                          size_t room, size_t* count) {
    return guarded([&] {
        need(detector != nullptr && count != nullptr, "a pointer is null");
        *count = 0;
        mbv3ssd::read_detection_out(data, rows, step, detector->contract.class_names.size(),
                                    {image_width, image_height, detector->clip}, detector->ready);
        return give(detector->ready, detections, room, count);
    });
}

}  // extern "C"
