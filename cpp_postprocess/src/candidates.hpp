// Scores above the threshold, found without a softmax for rows that cannot have any.
//
// A softmax share is above t only if its logit is above that of the background by more than
// log(t / (1 - t)). That takes one comparison per logit; exponentials are computed for the few priors
// that pass it. All decisions are then made on the share itself, as core/detections.py computes it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "exponent.hpp"
#include "lanes.hpp"
#include "mbv3ssd/postprocess.hpp"

namespace mbv3ssd {

// A candidate in one number, so that sorting upwards gives the best first: the score's bits turned
// round (positive floats rank as their bits), then prior, then label.
inline std::uint64_t candidate_from(float score, std::uint32_t place) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &score, sizeof bits);
    return (std::uint64_t{~bits} << 32U) | place;
}
inline float score_of(std::uint64_t candidate) {
    auto const bits = ~static_cast<std::uint32_t>(candidate >> 32U);
    float score = 0.0F;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}
// prior * classes + label
inline std::uint32_t place_of(std::uint64_t candidate) {
    return static_cast<std::uint32_t>(candidate);
}

template <class L>
class CandidateFinder {
   public:
    // `row` has room for `classes` floats, rounded up to whole lanes. `found` must have room for all.
    CandidateFinder(ConfForm form, std::size_t classes, double threshold, float* row,
                    std::vector<std::uint64_t>& found)
        : form_(form),
          classes_(classes),
          threshold_(static_cast<float>(threshold)),
          distance_(distance_for(static_cast<float>(threshold))),
          row_(row),
          found_(found) {
    }

    static std::size_t padded(std::size_t classes) { return (classes + 7) / 8 * 8; }

    // `conf` is (priors, classes), dense; the first of them is `first_prior`.
    void look_in_rows(float const* conf, std::size_t priors, std::size_t first_prior) {
        for (std::size_t i = 0; i < priors; ++i) {
            float const* const row = conf + i * classes_;
            if (any_above(row + 1, classes_ - 1, bound(row[0]))) {
                look_in_row(row, first_prior + i);
            }
        }
    }

    // `conf` is (classes * boxes, cells), planes `step` floats apart.
    void look_in_planes(float const* conf, std::size_t step, std::size_t cells, std::size_t boxes,
                        std::size_t first_prior) {
        for (std::size_t cell = 0; cell < cells; cell += 8) {
            std::size_t const count = cells - cell < 8 ? cells - cell : 8;
            // box by box, then cell by cell: the order of candidates does not matter
            for (std::size_t box = 0; box < boxes; ++box) {
                float const* const planes = conf + box * classes_ * step + cell;
                unsigned const hits = count == 8 ? cells_above(planes, step)
                                                 : few_cells_above(planes, step, count);
                for (std::size_t i = 0; i < count; ++i) {
                    if ((hits >> i & 1U) != 0U) {
                        for (std::size_t c = 0; c < classes_; ++c) {
                            row_[c] = planes[c * step + i];
                        }
                        look_in_row(row_, first_prior + (cell + i) * boxes + box);
                    }
                }
            }
        }
    }

   private:
    // The least difference of a logit to the background's, less the rounding error.
    static float distance_for(float threshold) {
        double const least = double{threshold} * (1.0 - 1e-6);
        return static_cast<float>(std::log(least / (1.0 - least)) - 1e-3);
    }

    // A row without any other number above this has no candidate.
    [[nodiscard]] float bound(float background) const {
        return form_ == ConfForm::probabilities
                   ? threshold_
                   : background + distance_ - std::fabs(background) * 1e-6F;
    }

    static bool any_above(float const* values, std::size_t count, float bound) {
        if (count < 8) {
            bool any = false;
            for (std::size_t i = 0; i < count; ++i) {
                any |= values[i] > bound;
            }
            return any;
        }
        L const limit = L::splat(bound);
        unsigned hits = above(L::load(values + count - 8), limit);
        for (std::size_t i = 0; i + 8 < count; i += 8) {
            hits |= above(L::load(values + i), limit);
        }
        return hits != 0U;
    }

    [[nodiscard]] L bounds(L const& background) const {
        if (form_ == ConfForm::probabilities) {
            return L::splat(threshold_);
        }
        L const size = max(background, L::splat(0.0F) - background);
        return background + L::splat(distance_) - size * L::splat(1e-6F);
    }

    unsigned cells_above(float const* planes, std::size_t step) const {
        L const limit = bounds(L::load(planes));
        unsigned hits = 0;
        for (std::size_t c = 1; c < classes_; ++c) {
            hits |= above(L::load(planes + c * step), limit);
        }
        return hits;
    }

    unsigned few_cells_above(float const* planes, std::size_t step, std::size_t count) const {
        unsigned hits = 0;
        for (std::size_t i = 0; i < count; ++i) {
            float const limit = bound(planes[i]);
            bool any = false;
            for (std::size_t c = 1; c < classes_; ++c) {
                any |= planes[c * step + i] > limit;
            }
            hits |= any ? 1U << i : 0U;
        }
        return hits;
    }

    void look_in_row(float const* row, std::size_t prior) {
        if (form_ == ConfForm::probabilities) {
            for (std::size_t c = 1; c < classes_; ++c) {
                if (row[c] > threshold_ && std::isfinite(row[c])) {
                    add(row[c], prior, c);
                }
            }
            return;
        }
        float const total = powers_of(row);
        // a row with NaN or +inf has a total of NaN, and nothing is above that
        L const floor = L::splat(threshold_ * total * (1.0F - 1e-6F));
        for (std::size_t i = 0; i < classes_; i += 8) {
            unsigned hits = above(L::load(row_ + i), floor);
            if (i == 0) {
                hits &= ~1U;  // the background
            }
            for (std::size_t c = i; hits != 0U; ++c, hits >>= 1U) {
                if ((hits & 1U) != 0U) {
                    float const share = row_[c] / total;
                    if (share > threshold_) {
                        add(share, prior, c);
                    }
                }
            }
        }
    }

    // Leaves e^(logit - largest) in `row_`, padded with 0, and returns their sum. `row` may be
    // `row_`.
    float powers_of(float const* row) {
        float last[8];
        std::size_t const whole = classes_ / 8 * 8;
        for (std::size_t i = 0; i < 8; ++i) {
            last[i] = whole + i < classes_ ? row[whole + i]
                                           : -std::numeric_limits<float>::infinity();
        }
        L best = L::load(last);
        for (std::size_t i = 0; i < whole; i += 8) {
            best = max(best, L::load(row + i));
        }
        L const most = L::splat(largest(best));
        L total = L::splat(0.0F);
        for (std::size_t i = 0; i < whole; i += 8) {
            total = total + store_powers(L::load(row + i) - most, i);
        }
        return sum(whole == classes_ ? total : total + store_powers(L::load(last) - most, whole));
    }

    L store_powers(L const& x, std::size_t at) {
        L const powers = exponential_of_small(x);
        powers.store(row_ + at);
        return powers;
    }

    void add(float score, std::size_t prior, std::size_t label) {
        found_.push_back(
            candidate_from(score, static_cast<std::uint32_t>(prior * classes_ + label)));
    }

    ConfForm form_;
    std::size_t classes_;
    float threshold_;
    float distance_;
    float* row_;
    std::vector<std::uint64_t>& found_;
};

}  // namespace mbv3ssd
