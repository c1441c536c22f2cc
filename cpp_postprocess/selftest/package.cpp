#include "package.hpp"

#include <fstream>
#include <stdexcept>
#include <utility>

#include "sha256.hpp"

namespace selftest {
namespace {

using Bytes = std::vector<unsigned char>;

Bytes read_bytes(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw std::runtime_error(path + " cannot be opened");
    }
    Bytes bytes;
    std::vector<char> block(std::size_t{1} << 16U);
    while (file.read(block.data(), static_cast<std::streamsize>(block.size())),
           file.gcount() > 0) {
        bytes.insert(bytes.end(), block.begin(), block.begin() + file.gcount());
    }
    if (file.bad()) {
        throw std::runtime_error(path + " cannot be read");
    }
    return bytes;
}

template <class Parse>
auto parsed(std::string const& path, Bytes const& bytes, Parse parse) {
    try {
        return parse(bytes.data(), bytes.size());
    } catch (std::invalid_argument const& error) {
        throw std::runtime_error(path + ": " + error.what());
    }
}

void check_files(Package& package) {
    for (GoldenFile const& promised : package.golden.files) {
        Bytes const bytes = read_bytes(package.folder + "/" + promised.name);
        Sha256 const digest = sha256_of(bytes.data(), bytes.size());
        package.found.push_back({promised.name, hex_of(digest)});
        if (bytes.size() != promised.size) {
            package.wrong.push_back(promised.name + " has " + std::to_string(bytes.size()) +
                                    " bytes, not " + std::to_string(promised.size));
        } else if (digest != promised.sha256) {
            package.wrong.push_back(promised.name + " has sha256 " +
                                    hex_of(digest).substr(0, 12) + "..., not " +
                                    hex_of(promised.sha256).substr(0, 12) + "...");
        }
    }
}

}  // namespace

Package open_package(std::string const& folder) {
    std::string const path = folder + "/" + golden_file;
    Golden golden = parsed(path, read_bytes(path), parse_golden);
    std::string const contract_path = folder + "/" + golden.contract;
    Bytes const contract = read_bytes(contract_path);
    Package package{folder,
                    std::move(golden),
                    {},
                    {},
                    parsed(contract_path, contract, mbv3ssd::parse_contract),
                    open_detector(contract_path),
                    {},
                    {}};
    package.about = describe(package.detector);
    check_files(package);
    for (GoldenImage const& image : package.golden.images) {
        package.pictures.push_back(read_picture(folder + "/" + image.file));
    }
    return package;
}

}  // namespace selftest
