// Priors (default boxes): the table of a contract as numbers.
#pragma once

#include <vector>

#include "mbv3ssd/contract.hpp"
#include "mbv3ssd/types.hpp"

namespace mbv3ssd {

// Returns all priors: level by level, row, column, box within the cell. Computed in double and
// rounded once, so that they are those of core/priors.py, bit by bit.
[[nodiscard]] std::vector<Prior> build_priors(PriorTable const& table);

}  // namespace mbv3ssd
