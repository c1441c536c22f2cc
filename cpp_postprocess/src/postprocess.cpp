#include "mbv3ssd/postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "candidates.hpp"
#include "head_check.hpp"
#include "mbv3ssd/priors.hpp"

namespace mbv3ssd {
namespace {

using Finder = CandidateFinder<Lanes>;

constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
constexpr std::size_t first_chunk = 512;

std::size_t limit_from(std::uint32_t count) { return count == 0 ? no_limit : count; }

// The most detections before the limit on their total.
std::size_t most_kept(DecodeRule const& rule, std::size_t priors, std::size_t classes) {
    std::size_t const each = std::min(
        {priors, limit_from(rule.candidates_per_class), limit_from(rule.keep_per_class)});
    return each * (classes - 1);
}

// The most boxes that `select` keeps to compare others with.
std::size_t most_compared(DecodeRule const& rule, std::size_t priors, std::size_t classes) {
    std::size_t const each = std::min(priors, limit_from(rule.candidates_per_class));
    std::size_t const all = each * (classes - 1);
    bool const stops = rule.keep_total != 0 && rule.keep_per_class == 0;
    return stops ? std::min<std::size_t>(all, std::size_t{rule.keep_total} + 1) : all;
}

// Sorts the best `chunk` candidates from `at` on; returns where they end.
std::size_t sort_next(std::vector<std::uint64_t>& candidates, std::size_t at, std::size_t chunk) {
    auto const first = candidates.begin() + static_cast<std::ptrdiff_t>(at);
    auto last = candidates.end();
    if (candidates.size() - at > chunk) {
        last = first + static_cast<std::ptrdiff_t>(chunk);
        std::nth_element(first, last, candidates.end());
    }
    std::sort(first, last);
    return static_cast<std::size_t>(last - candidates.begin());
}

}  // namespace

int lanes() {
#if defined(__AVX2__)
    return 2;
#else
    return std::is_same_v<Lanes, PlainLanes> ? 0 : 1;
#endif
}

Postprocessor::Postprocessor(Contract const& contract)
    : rule_((check_contract(contract), contract.decode)),
      decoder_(contract.coder),
      levels_(contract.priors.levels),
      priors_(build_priors(contract.priors)),
      class_count_(contract.class_names.size()),
      input_width_(static_cast<float>(contract.input.width)),
      input_height_(static_cast<float>(contract.input.height)),
      last_pixel_x_(rule_.box_edges == BoxEdges::inclusive ? 1.0F / input_width_ : 0.0F),
      last_pixel_y_(rule_.box_edges == BoxEdges::inclusive ? 1.0F / input_height_ : 0.0F) {
    bool const in_classes = rule_.nms_scope == NmsScope::by_class;
    candidates_.reserve(priors_.size() * (class_count_ - 1));
    row_.resize(Finder::padded(class_count_));
    boxes_.resize(priors_.size());
    box_epoch_.assign(priors_.size(), 0);
    seen_.resize(class_count_);
    kept_.resize(class_count_);
    kept_boxes_.reserve(in_classes ? class_count_ : 1,
                        most_compared(rule_, priors_.size(), class_count_));
    found_.reserve(std::min(most_kept(rule_, priors_.size(), class_count_),
                            rule_.keep_total == 0 ? no_limit : rule_.keep_total + std::size_t{1}));
}

void Postprocessor::set_priors(Prior const* priors, std::size_t count) {
    if (priors == nullptr || count != priors_.size()) {
        throw std::invalid_argument("the contract has " + std::to_string(priors_.size()) +
                                    " priors, not " + std::to_string(count));
    }
    std::copy(priors, priors + count, priors_.begin());
}

void Postprocessor::set_thresholds(double score, double iou) {
    bool const are_shares = score >= 0.0 && score <= 1.0 && iou >= 0.0 && iou <= 1.0;  // not NaN
    if (!are_shares) {
        throw std::invalid_argument("score and IoU thresholds must lie within 0..1");
    }
    rule_.score_threshold = score;
    rule_.iou_threshold = iou;
}

std::vector<Detection> const& Postprocessor::run(Heads const& heads, Frame const& frame) {
    check_frame(frame);
    check_heads(heads, levels_, class_count_);
    if (++epoch_ == 0) {  // after an overflow no old box may look current
        std::fill(box_epoch_.begin(), box_epoch_.end(), 0U);
        epoch_ = 1;
    }
    find_candidates(heads);
    if (rule_.nms_scope == NmsScope::all_classes) {
        drop_beyond_class_limit(heads);
        spread_classes(heads);
    }
    select(heads);
    put_in_order();
    scale(frame);
    return found_;
}

void Postprocessor::find_candidates(Heads const& heads) {
    candidates_.clear();
    Finder finder(heads.conf, class_count_, rule_.score_threshold, row_.data(), candidates_);
    std::size_t first = 0;
    for (std::size_t i = 0; i < heads.part_count; ++i) {
        HeadPart const& part = heads.parts[i];
        if (part.layout == HeadLayout::rows) {
            std::size_t const count = part.loc_size / 4;
            finder.look_in_rows(part.conf, count, first);
            first += count;
        } else {
            std::size_t const cells = levels_[i].cells();
            std::size_t const step = part.conf_plane_step == 0 ? cells : part.conf_plane_step;
            finder.look_in_planes(part.conf, step, cells, levels_[i].boxes_per_cell(), first);
            first += levels_[i].count();
        }
    }
}

// Returns the decoded box of a prior, as core/detections.py reports it: normalised corners, those of
// the last pixel if edges are inclusive, clipped if the rules clip before NMS.
Box Postprocessor::box_of(Heads const& heads, std::uint32_t prior) {
    if (box_epoch_[prior] != epoch_) {
        box_epoch_[prior] = epoch_;
        boxes_[prior] = compute_box(heads, prior);
    }
    return boxes_[prior];
}

Box Postprocessor::compute_box(Heads const& heads, std::uint32_t prior) const {
    std::size_t index = prior;
    std::size_t at = 0;
    if (heads.part_count > 1) {
        for (; index >= levels_[at].count(); ++at) {
            index -= levels_[at].count();
        }
    }
    HeadPart const& part = heads.parts[at];
    float numbers[4];
    if (part.layout == HeadLayout::rows) {
        std::copy(part.loc + index * 4, part.loc + index * 4 + 4, numbers);
    } else {
        std::size_t const boxes = levels_[at].boxes_per_cell();
        std::size_t const step =
            part.loc_plane_step == 0 ? levels_[at].cells() : part.loc_plane_step;
        for (std::size_t i = 0; i < 4; ++i) {
            numbers[i] = part.loc[(index % boxes * 4 + i) * step + index / boxes];
        }
    }
    Box box{numbers[0], numbers[1], numbers[2], numbers[3]};
    if (heads.loc == LocForm::offsets) {
        box = decoder_.decode(numbers, priors_[prior]);
    }
    if (!is_finite(box)) {
        return box;
    }
    box.x_max -= last_pixel_x_;
    box.y_max -= last_pixel_y_;
    if (rule_.clip_before_nms) {
        box.x_min = std::min(std::max(box.x_min, 0.0F), 1.0F - last_pixel_x_);
        box.y_min = std::min(std::max(box.y_min, 0.0F), 1.0F - last_pixel_y_);
        box.x_max = std::min(std::max(box.x_max, 0.0F), 1.0F - last_pixel_x_);
        box.y_max = std::min(std::max(box.y_max, 0.0F), 1.0F - last_pixel_y_);
    }
    return box;
}

// For NMS over all classes, each class is limited first.
void Postprocessor::drop_beyond_class_limit(Heads const& heads) {
    std::size_t const limit = limit_from(rule_.candidates_per_class);
    if (limit < priors_.size()) {
        std::sort(candidates_.begin(), candidates_.end());
    }
    std::fill(seen_.begin(), seen_.end(), 0U);
    auto const end =
        std::remove_if(candidates_.begin(), candidates_.end(), [&](std::uint64_t candidate) {
            auto const classes = static_cast<std::uint32_t>(class_count_);
            std::uint32_t const label = place_of(candidate) % classes;
            return !is_finite(box_of(heads, place_of(candidate) / classes)) ||
                   seen_[label]++ >= limit;
        });
    candidates_.erase(end, candidates_.end());
}

// Computes how far boxes of one class are moved from those of the next, in pixels of the input.
void Postprocessor::spread_classes(Heads const& heads) {
    float most = 0.0F;
    for (std::uint64_t const candidate : candidates_) {
        Box const box =
            box_of(heads, place_of(candidate) / static_cast<std::uint32_t>(class_count_));
        most = std::max({most, box.x_min * input_width_, box.y_min * input_height_,
                         (box.x_max + last_pixel_x_) * input_width_,
                         (box.y_max + last_pixel_y_) * input_height_});
    }
    class_distance_ = most + 1.0F;
}

// Takes the candidates from the best down and keeps those that no better one suppresses. They are
// sorted chunk by chunk, because most are never reached.
void Postprocessor::select(Heads const& heads) {
    bool const in_classes = rule_.nms_scope == NmsScope::by_class;
    // by class, candidates beyond the limit suppress nothing; over all classes they are gone by now
    std::size_t const candidate_limit =
        in_classes ? limit_from(rule_.candidates_per_class) : no_limit;
    std::size_t const keep_limit = limit_from(rule_.keep_per_class);
    // one more than the limit, so that `put_in_order` knows whether the list was cut
    std::size_t const enough =
        rule_.keep_total == 0 ? no_limit : std::size_t{rule_.keep_total} + 1;
    double const unit = in_classes ? 1.0 : double{input_width_} * double{input_height_};
    OverlapRule const overlap{static_cast<float>(rule_.iou_threshold),
                              static_cast<float>(rule_.iou_epsilon * unit),
                              rule_.suppress_at_threshold};
    auto const classes = static_cast<std::uint32_t>(class_count_);

    found_.clear();
    kept_boxes_.clear();
    std::fill(seen_.begin(), seen_.end(), 0U);
    std::fill(kept_.begin(), kept_.end(), 0U);
    std::size_t sorted = 0;
    std::size_t chunk = first_chunk;
    for (std::size_t at = 0; at < candidates_.size() && found_.size() < enough; ++at) {
        if (at == sorted) {
            sorted = sort_next(candidates_, at, chunk);
            chunk *= 2;
        }
        std::uint32_t const label = place_of(candidates_[at]) % classes;
        std::uint32_t const prior = place_of(candidates_[at]) / classes;
        if (seen_[label] >= candidate_limit || (in_classes && kept_[label] >= keep_limit)) {
            continue;
        }
        Box const box = box_of(heads, prior);
        if (!is_finite(box)) {
            continue;
        }
        ++seen_[label];
        Box area{box.x_min, box.y_min, box.x_max + last_pixel_x_, box.y_max + last_pixel_y_};
        if (!in_classes) {
            float const aside = static_cast<float>(label) * class_distance_;
            area = {area.x_min * input_width_ + aside, area.y_min * input_height_ + aside,
                    area.x_max * input_width_ + aside, area.y_max * input_height_ + aside};
            if (!is_finite(area)) {
                continue;
            }
        }
        std::size_t const list = in_classes ? label : 0;
        if (kept_boxes_.suppresses(list, area, overlap)) {
            continue;
        }
        kept_boxes_.add(list, area);
        if (kept_[label]++ < keep_limit) {
            found_.push_back({box, score_of(candidates_[at]), static_cast<std::int32_t>(label),
                              static_cast<std::int32_t>(prior)});
        }
    }
}

// A list that was cut stays sorted by score.
void Postprocessor::put_in_order() {
    if (rule_.keep_total != 0 && found_.size() > rule_.keep_total) {
        found_.resize(rule_.keep_total);
        return;
    }
    auto const by_class = [](Detection const& a, Detection const& b) {
        return std::tuple(a.label, -a.score, a.prior) < std::tuple(b.label, -b.score, b.prior);
    };
    auto const by_class_prior = [](Detection const& a, Detection const& b) {
        return std::tuple(a.label, a.prior) < std::tuple(b.label, b.prior);
    };
    if (rule_.order == ResultOrder::by_class) {
        std::sort(found_.begin(), found_.end(), by_class);
    } else if (rule_.order == ResultOrder::by_class_prior) {
        std::sort(found_.begin(), found_.end(), by_class_prior);
    }
}

void Postprocessor::scale(Frame const& frame) {
    float const last_x = (1.0F - last_pixel_x_) * frame.width;
    float const last_y = (1.0F - last_pixel_y_) * frame.height;
    for (Detection& detection : found_) {
        Box& box = detection.box;
        box = {box.x_min * frame.width, box.y_min * frame.height, box.x_max * frame.width,
               box.y_max * frame.height};
        if (frame.clip) {
            box = {std::min(std::max(box.x_min, 0.0F), last_x),
                   std::min(std::max(box.y_min, 0.0F), last_y),
                   std::min(std::max(box.x_max, 0.0F), last_x),
                   std::min(std::max(box.y_max, 0.0F), last_y)};
        }
    }
}

}  // namespace mbv3ssd
