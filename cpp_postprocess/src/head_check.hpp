// Checks of all sizes, before anything is read.
#pragma once

#include <cstddef>
#include <vector>

#include "mbv3ssd/postprocess.hpp"

namespace mbv3ssd {

// Throws std::invalid_argument unless the frame has a finite size above 0.
void check_frame(Frame const& frame);

// Throws std::invalid_argument unless `heads` fit these levels and classes.
void check_heads(Heads const& heads, std::vector<PriorLevel> const& levels, std::size_t classes);

}  // namespace mbv3ssd
