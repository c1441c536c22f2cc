#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "byte_reader.hpp"

namespace selftest {
namespace {

constexpr char magic[8] = {'M', 'B', 'V', '3', 'S', 'S', 'D', 'G'};
constexpr std::size_t header_size = 20;
constexpr char cut_off[] = "the golden file is cut off";

// As in the contract: what is larger is no detector for a small board.
constexpr std::uint32_t max_side = 32768;
constexpr std::size_t max_numbers = 1U << 26U;

void require(bool condition, char const* sentence) {
    if (!condition) {
        throw GoldenError(sentence);
    }
}

bool is_share(double value) { return value >= 0.0 && value <= 1.0; }

bool is_limit(double value) { return std::isfinite(value) && value >= 0.0; }

class Reader : public mbv3ssd::ByteReader<GoldenError> {
   public:
    Reader(unsigned char const* data, std::size_t size) : ByteReader(data, size, cut_off) {}

    float small() {
        std::uint32_t const pattern = whole();
        float value = 0.0F;
        std::memcpy(&value, &pattern, sizeof value);
        return value;
    }

    std::vector<float> floats(std::size_t count) {
        require(count <= left() / sizeof(float), cut_off);
        std::vector<float> values(count);
        for (float& value : values) {
            value = small();
        }
        return values;
    }

    // The name of a file in this folder: nothing that leads out of it.
    std::string file_name() {
        std::string name = text();
        bool const plain =
            !name.empty() && name[0] != '.' &&
            name.find_first_of(std::string("/\\:\0", 4)) == std::string::npos;
        require(plain, "the golden file names a file that is not beside it");
        return name;
    }
};

GoldenFile read_file(Reader& reader) {
    GoldenFile file;
    file.name = reader.file_name();
    file.size = reader.whole();
    for (std::size_t i = 0; i < file.sha256.size(); i += 4) {
        std::uint32_t const word = reader.whole();
        for (std::size_t byte = 0; byte < 4; ++byte) {
            file.sha256[i + byte] = static_cast<unsigned char>(word >> (8 * byte) & 0xFFU);
        }
    }
    return file;
}

Limits read_limits(Reader& reader) {
    Limits limits;
    limits.arithmetic = reader.text();
    limits.heads = reader.real();
    limits.priors = reader.real();
    limits.box_iou = reader.real();
    limits.box_share = reader.real();
    limits.box_score = reader.real();
    limits.margin = reader.real();
    require(is_limit(limits.heads) && is_limit(limits.priors) && is_share(limits.box_iou) &&
             is_share(limits.box_share) && is_share(limits.box_score) && is_share(limits.margin),
         "the golden file has an impossible limit");
    return limits;
}

GoldenBoxes read_boxes(Reader& reader, std::uint32_t classes) {
    GoldenBoxes list;
    list.cut = reader.real();
    require(is_share(list.cut), "the golden file has a score that lies outside 0..1");
    std::size_t const count = reader.count(24);
    for (std::size_t i = 0; i < count; ++i) {
        GoldenBox box;
        box.label = reader.whole();
        box.score = reader.small();
        for (float* corner : {&box.x_min, &box.y_min, &box.x_max, &box.y_max}) {
            *corner = reader.small();
        }
        require(box.label > 0 && box.label < classes, "the golden file has a label without a class");
        require(is_share(static_cast<double>(box.score)) &&
                 std::isfinite(box.x_min + box.y_min + box.x_max + box.y_max),
             "the golden file has a box that is not finite");
        list.boxes.push_back(box);
    }
    return list;
}

GoldenImage read_image(Reader& reader, Golden const& golden) {
    GoldenImage image;
    image.file = reader.file_name();
    image.width = reader.whole();
    image.height = reader.whole();
    require(image.width > 0 && image.height > 0 && image.width <= max_side && image.height <= max_side,
         "the golden file has an image of no size, or one that is too large");
    image.tensor = reader.floats(std::size_t{3} * golden.input_width * golden.input_height);
    image.loc = reader.floats(std::size_t{4} * golden.priors);
    image.conf = reader.floats(std::size_t{golden.classes} * golden.priors);
    image.own = read_boxes(reader, golden.classes);
    image.detection_out = read_boxes(reader, golden.classes);
    return image;
}

void read_sizes(Reader& reader, Golden& golden) {
    std::uint32_t const outputs = reader.whole();
    require(outputs <= static_cast<std::uint32_t>(Outputs::levels),
         "the golden file has an unknown form of outputs");
    golden.outputs = static_cast<Outputs>(outputs);
    golden.input_width = reader.whole();
    golden.input_height = reader.whole();
    golden.priors = reader.whole();
    golden.classes = reader.whole();
    bool const fits = golden.input_width > 0 && golden.input_height > 0 && golden.priors > 0 &&
                      golden.classes > 1 && golden.input_width <= max_side &&
                      golden.input_height <= max_side && golden.priors <= max_numbers &&
                      golden.classes <= max_numbers / golden.priors;
    require(fits, "the golden file has an impossible size");
    for (double& deviation : golden.deviation) {
        deviation = reader.real();
        require(std::isfinite(deviation) && deviation > 0,
             "the golden file has an impossible standard deviation");
    }
}

void read_files(Reader& reader, Golden& golden) {
    golden.param = reader.file_name();
    golden.bin = reader.file_name();
    golden.contract = reader.file_name();
    std::size_t const files = reader.count(41);
    for (std::size_t i = 0; i < files; ++i) {
        golden.files.push_back(read_file(reader));
    }
    for (std::string const* name : {&golden.param, &golden.bin, &golden.contract}) {
        bool const listed = std::any_of(golden.files.begin(), golden.files.end(),
                                        [name](GoldenFile const& f) { return f.name == *name; });
        require(listed, "the golden file has no hash of the model's files");
    }
}

}  // namespace

Limits const* Golden::limits_of(std::string const& arithmetic) const {
    for (Limits const& row : limits) {
        if (row.arithmetic == arithmetic) {
            return &row;
        }
    }
    return nullptr;
}

Golden parse_golden(void const* data, std::size_t size) {
    require(data != nullptr || size == 0, "the golden file is a null pointer");
    auto const* const bytes = static_cast<unsigned char const*>(data);
    require(size >= header_size && std::equal(std::begin(magic), std::end(magic), bytes),
         "not a golden file: the bytes do not begin with MBV3SSDG");
    Reader header(bytes + sizeof magic, header_size - sizeof magic);
    std::uint32_t const version = header.whole();
    if (version != golden_version) {
        throw GoldenError("the golden file has version " + std::to_string(version) +
                          ", this program reads " + std::to_string(golden_version));
    }
    std::uint32_t const body_size = header.whole();
    require(body_size == size - header_size,
         "the golden file is cut off or has trailing bytes");
    require(header.whole() == mbv3ssd::crc32(bytes + header_size, body_size),
         "the golden file is damaged: its checksum does not match");

    Reader reader(bytes + header_size, body_size);
    Golden golden;
    golden.name = reader.text();
    golden.made_by = reader.text();
    read_sizes(reader, golden);
    read_files(reader, golden);
    golden.exact = {reader.real(), reader.real(), reader.real()};
    require(is_limit(golden.exact.levels) && is_limit(golden.exact.score) &&
             is_limit(golden.exact.pixels),
         "the golden file has an impossible limit");
    std::size_t const rows = reader.count(52);
    for (std::size_t i = 0; i < rows; ++i) {
        golden.limits.push_back(read_limits(reader));
    }
    std::size_t const images = reader.count(12);
    for (std::size_t i = 0; i < images; ++i) {
        golden.images.push_back(read_image(reader, golden));
    }
    require(!golden.images.empty(), "the golden file has no image");
    require(reader.left() == 0, "the golden file has trailing bytes");
    return golden;
}

}  // namespace selftest
