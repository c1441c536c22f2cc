// A package as it lies in its folder: what is promised, and what is there.
#pragma once

#include <string>
#include <vector>

#include "golden.hpp"
#include "mbv3ssd/contract.hpp"
#include "network.hpp"
#include "picture.hpp"
#include "report.hpp"

namespace selftest {

inline constexpr char golden_file[] = "golden.mbv3g";

struct Package {
    std::string folder;
    Golden golden;
    std::vector<CheckedFile> found;  // the files listed in golden, as they are here
    std::vector<std::string> wrong;  // of those: what is wrong with each that is not as packaged
    mbv3ssd::Contract contract;
    Detector detector;
    mbv3ssd_description about;
    std::vector<Picture> pictures;  // one an image of golden
};

// Reads all but the network. Throws std::runtime_error or std::invalid_argument if a file is not
// there, or does not follow its format.
[[nodiscard]] Package open_package(std::string const& folder);

}  // namespace selftest
