import dataclasses

import numpy as np
import pytest
from builders import tiny_spec

from mbv3ssd_deploy.core.boxes import corners_from_centre, iou_matrix
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.train.priors import (
    LabelledBoxes,
    fit_of_priors,
    labelled_boxes,
    proposed_priors,
)

PRIORS = tiny_spec(image_size=(128, 160)).priors


def random_objects(seed, sides, labels=(1,), count=60):
    rng = np.random.default_rng(seed)
    label_of = rng.choice(labels, count)
    low, high = np.array([sides[label] for label in label_of]).T
    sizes = rng.uniform(low, high, (2, count)).T
    corner = rng.uniform(0, 1, (count, 2)) * (1 - sizes)
    return LabelledBoxes(np.hstack([corner, corner + sizes]), label_of)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_that_of_all_priors_one_by_one(seed):
    objects = random_objects(seed, {1: (0.02, 0.9)})

    fit = fit_of_priors(PRIORS, objects)

    best = iou_matrix(objects.boxes, corners_from_centre(build_priors(PRIORS))).max(axis=1)
    assert fit.mean_iou == pytest.approx(best.mean(), abs=1e-9)
    assert fit.recall == fit.worst_recall == pytest.approx((best >= 0.5).mean())


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    large = random_objects(0, {1: (0.3, 0.6)}, count=90)
    small = random_objects(1, {2: (0.03, 0.05)}, labels=(2,), count=10)
    both = LabelledBoxes(*map(np.concatenate, zip(large, small, strict=True)))

    fit = fit_of_priors(PRIORS, both)

    alone = [fit_of_priors(PRIORS, one) for one in (large, small)]
    assert fit.recall == pytest.approx(np.mean([one.recall for one in alone]))
    assert (fit.worst_label, fit.worst_recall) == (2, alone[1].recall)
    assert fit.is_poor
    assert not alone[0].is_poor


def test_proposed_sizes_find_small_objects_and_keep_the_large_ones():
    sides = {1: (0.3, 0.6), 2: (0.12, 0.16)}
    objects = random_objects(2, sides, labels=(1, 1, 1, 2), count=200)

    proposal = proposed_priors(PRIORS, objects)

    before, after = fit_of_priors(PRIORS, objects), fit_of_priors(proposal, objects)
    assert after.worst_recall > before.worst_recall + 0.15
    assert after.recall > before.recall
    cells = [(level.rows, level.cols, level.step_x, level.step_y) for level in PRIORS.levels]
    assert cells == [(one.rows, one.cols, one.step_x, one.step_y) for one in proposal.levels]
    assert proposal.count == PRIORS.count


def test_sizes_that_fit_are_left_as_they_are():
    centre = np.array([[0.5 + 0.5 / level.cols] * 2 for level in PRIORS.levels[:1]])
    side = PRIORS.levels[0].min_size / PRIORS.frame_width
    column = (np.floor(centre * (PRIORS.levels[0].cols, PRIORS.levels[0].rows)) + 0.5) / (
        PRIORS.levels[0].cols,
        PRIORS.levels[0].rows,
    )
    objects = LabelledBoxes(np.hstack([column - side / 2, column + side / 2]), np.array([1]))

    assert proposed_priors(PRIORS, objects) == PRIORS


def test_a_level_with_one_square_keeps_one():
    levels = tuple(dataclasses.replace(level, max_size=None) for level in PRIORS.levels)
    priors = dataclasses.replace(PRIORS, levels=levels)
    objects = random_objects(3, {1: (0.1, 0.15)})

    proposal = proposed_priors(priors, objects)

    assert proposal != priors
    assert all(level.max_size is None for level in proposal.levels)


def test_without_objects_everything_fits():
    nothing = labelled_boxes(())

    assert fit_of_priors(PRIORS, nothing).recall == 1.0
    assert proposed_priors(PRIORS, nothing) == PRIORS


def test_of_a_frequent_class_a_sample_is_looked_at(scenes):
    many = labelled_boxes(scenes.samples * 300)

    assert np.bincount(many.labels).max() <= 1000
    assert set(many.labels) == {label for one in scenes.samples for label in one.truth.labels}
