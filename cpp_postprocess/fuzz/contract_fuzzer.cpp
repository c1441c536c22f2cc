// Any bytes, and any body with a correct checksum, are a contract or a clean error.
#include "input.hpp"
#include "mbv3ssd/c_api.h"
#include "mbv3ssd/contract.hpp"
#include "small_model.hpp"

namespace {

void parse(std::uint8_t const* data, std::size_t size) {
    try {
        mbv3ssd::Contract const contract = mbv3ssd::parse_contract(data, size);
        must(contract.class_names.size() >= 2 && contract.priors.count() >= 1);
        if (contract.priors.count() * contract.class_names.size() < 100000 &&
            contract.input.width < 1000 && contract.input.height < 1000) {
            mbv3ssd_detector* detector = nullptr;
            must(mbv3ssd_open_memory(data, size, &detector) == MBV3SSD_OK);
            mbv3ssd_close(detector);
        }
    } catch (mbv3ssd::ContractError const& error) {
        must(error.what()[0] != '\0');
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    parse(data, size);
    auto const sealed = ContractBytes::seal({data, data + size});
    parse(sealed.data(), sealed.size());
    return 0;
}
