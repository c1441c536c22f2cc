// After the first image, nothing is allocated.
#include <cstdlib>
#include <new>

#include "check.hpp"
#include "mbv3ssd/c_api.h"
#include "small_model.hpp"

namespace {
std::size_t allocations = 0;
}

// inlined, GCC would warn that memory of `new` is given to `free`
#if defined(__GNUC__)
#define OPAQUE __attribute__((noinline))
#else
#define OPAQUE
#endif

OPAQUE void* operator new(std::size_t size) {
    ++allocations;
    if (void* const memory = std::malloc(size)) {
        return memory;
    }
    throw std::bad_alloc();
}
OPAQUE void operator delete(void* memory) noexcept { std::free(memory); }
OPAQUE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// All in one part, or one for each level.
static std::vector<mbv3ssd_head> parts_of(SmallHeads const& heads, bool by_level) {
    std::vector<mbv3ssd_head> parts;
    std::size_t at = 0;
    for (std::size_t const count : by_level ? std::vector<std::size_t>{30, 24, 3}
                                            : std::vector<std::size_t>{57}) {
        parts.push_back({&heads.loc[4 * at], &heads.conf[5 * at], 4 * count, 5 * count,
                         MBV3SSD_ROWS, 0, 0});
        at += count;
    }
    return parts;
}

TEST_CASE("frames after the first allocate nothing") {
    using mbv3ssd::NmsScope;
    using mbv3ssd::ResizeRule;
    for (ResizeRule const resize : {ResizeRule::cv2_u8, ResizeRule::pil_u8_antialias,
                                    ResizeRule::float_after_normalise}) {
        for (NmsScope const scope : {NmsScope::by_class, NmsScope::all_classes}) {
            mbv3ssd::Contract contract = small_contract();
            contract.input.resize = resize;
            contract.decode.nms_scope = scope;
            contract.decode.order = mbv3ssd::ResultOrder::by_class;
            contract.decode.keep_total = 0;
            auto const bytes = ContractBytes(contract).sealed();
            mbv3ssd_detector* detector = nullptr;
            REQUIRE(mbv3ssd_open_memory(bytes.data(), bytes.size(), &detector) == MBV3SSD_OK);

            Random random(1);
            std::vector<unsigned char> const pixels(31 * 17 * 4, 77);
            mbv3ssd_image const image{pixels.data(), 31, 17, MBV3SSD_BGRA, 0, nullptr, 0};
            std::vector<float> tensor(3 * 12 * 10);
            std::vector<mbv3ssd_detection> room(57 * 4);
            std::vector<float> rows;  // of detection_out
            std::size_t after_first = 0;
            for (int frame = 0; frame < 30; ++frame) {
                // few candidates first, then as many as there can be
                SmallHeads heads = random_heads(random, 57, 5);
                if (frame == 0) {
                    heads.conf.assign(heads.conf.size(), 0.0F);
                    for (std::size_t i = 0; i < 57; ++i) {
                        heads.conf[5 * i] = 30.0F;
                    }
                }
                std::vector<mbv3ssd_head> const parts = parts_of(heads, frame > 15);
                if (frame != 0) {
                    rows.insert(rows.end(), {1, 0.5F, 0, 0, 1, 1});
                }
                std::size_t const before = allocations;
                std::size_t count = 0;
                std::size_t count_of_rows = 0;
                int const statuses[] = {
                    mbv3ssd_preprocess(detector, &image, tensor.data(), tensor.size()),
                    mbv3ssd_postprocess(detector, parts.data(), parts.size(), 31, 17, room.data(),
                                        room.size(), &count),
                    mbv3ssd_read_detection_out(detector, rows.data(), rows.size() / 6, 6, 31, 17,
                                               room.data(), room.size(), &count_of_rows)};
                after_first += frame == 0 ? 0 : allocations - before;
                for (int const status : statuses) {
                    CHECK(status == MBV3SSD_OK);
                }
                CHECK((count == 0) == (frame == 0));
                CHECK(count_of_rows == rows.size() / 6);
            }
            CHECK(after_first == 0);
            mbv3ssd_close(detector);
        }
    }
    CHECK(allocations > 0);
}
