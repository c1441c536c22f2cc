import math

import pytest
import torch

from mbv3ssd_deploy.train.loss import Targets, ssd_loss

# the logits of five priors, as log odds: from certainly background to certainly class 1
ODDS = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
CONF = torch.stack([torch.zeros(5), ODDS], dim=1)[None]


def background_loss(odds):
    return math.log1p(math.exp(odds))


def targets(labels, offsets=None):
    labels = torch.tensor([labels])
    return Targets(labels, torch.zeros(*labels.shape, 4) if offsets is None else offsets)


def test_hard_negatives_are_those_with_the_least_certain_background():
    sums = ssd_loss(torch.zeros(1, 5, 4), CONF, targets([1, 0, 0, 0, 0]), negatives_per_positive=2)

    expected = background_loss(4.0) + background_loss(4.0) + background_loss(2.0)
    assert sums.terms[1].item() == pytest.approx(expected, rel=1e-6)
    assert sums.divisor.item() == 1


def test_each_match_has_three_negatives():
    sums = ssd_loss(torch.zeros(1, 5, 4), CONF, targets([1, 0, 0, 0, 0]))

    expected = background_loss(4.0) + sum(background_loss(odds) for odds in (4, 2, 0))
    assert sums.terms[1].item() == pytest.approx(expected, rel=1e-6)


def test_an_image_without_objects_teaches_what_is_background():
    sums = ssd_loss(torch.zeros(1, 5, 4), CONF, targets([0, 0, 0, 0, 0]))

    assert sums.terms[1].item() == pytest.approx(
        sum(background_loss(odds) for odds in (4, 2, 0)), rel=1e-6
    )
    assert sums.terms[0].item() == 0
    assert sums.divisor.item() == 0


def test_negatives_are_counted_image_by_image():
    labels = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    conf = torch.cat([CONF, CONF])

    together = ssd_loss(torch.zeros(2, 5, 4), conf, Targets(labels, torch.zeros(2, 5, 4)))
    alone = [
        ssd_loss(torch.zeros(1, 5, 4), CONF, Targets(labels[i : i + 1], torch.zeros(1, 5, 4)))
        for i in range(2)
    ]

    total = sum(one.terms[1] for one in alone)
    assert together.terms[1].item() == pytest.approx(total.item(), rel=1e-6)


def test_boxes_count_at_matched_priors_only_by_smooth_l1():
    loc = torch.zeros(1, 5, 4)
    loc[0, 0] = torch.tensor([0.5, -3.0, 0.0, 0.0])
    loc[0, 4] = 100.0

    sums = ssd_loss(loc, CONF, targets([1, 0, 0, 0, 0]))

    assert sums.terms[0].item() == pytest.approx(0.5 * 0.5**2 + (3 - 0.5), rel=1e-6)


def test_offsets_of_unmatched_priors_are_ignored():
    offsets = torch.full((1, 5, 4), torch.inf)
    offsets[0, 0] = 0.0
    loc = torch.zeros(1, 5, 4, requires_grad=True)

    sums = ssd_loss(loc, CONF, targets([1, 0, 0, 0, 0], offsets))
    (sums.terms[0] + sums.terms[1]).backward()

    assert sums.terms[0].item() == 0
    assert torch.isfinite(loc.grad).all()


def test_hard_negatives_raise_the_background_and_easy_ones_do_nothing():
    conf = CONF.clone().requires_grad_()

    ssd_loss(torch.zeros(1, 5, 4), conf, targets([1, 0, 0, 0, 0]), negatives_per_positive=1).terms[
        1
    ].backward()

    assert conf.grad[0, 4, 0] < 0 < conf.grad[0, 4, 1]
    assert conf.grad[0, 0, 1] < 0
    assert not conf.grad[0, 1:4].any()
