// From a regression to a box (SSD, arXiv 1512.02325, section 2.2).
#pragma once

#include "mbv3ssd/contract.hpp"
#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

// The coder of a contract, in the float type that the families decode in.
class BoxDecoder {
   public:
    explicit BoxDecoder(BoxCoder const& coder);

    // Returns the box that four offsets (x, y, width, height) make of a prior: corners in the
    // prior's unit, not clipped.
    // NaN, and offsets too large for float, give a box that is not finite.
    [[nodiscard]] Box decode(float const* offsets, Prior const& prior) const;

   private:
    float centre_variance_, size_variance_, max_log_size_, min_log_size_;
};

// Whether no corner is NaN or infinite.
[[nodiscard]] bool is_finite(Box const& box);

}  // namespace mbv3ssd
