import math

import pytest
import torch

from mbv3ssd_deploy.train.loss import loss_sums
from mbv3ssd_deploy.train.matching import Targets

# the logits of five priors: surely the background .. surely class 1, as a log odds
ODDS = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0])
CONF = torch.stack([torch.zeros(5), ODDS], dim=1)[None]


def background_loss(odds):
    return math.log1p(math.exp(odds))


def targets(labels, offsets=None):
    labels = torch.tensor([labels])
    return Targets(labels, torch.zeros(*labels.shape, 4) if offsets is None else offsets)


def test_hard_negatives_are_those_that_the_net_is_least_sure_of():
    sums = loss_sums(torch.zeros(1, 5, 4), CONF, targets([1, 0, 0, 0, 0]), negatives_per_positive=2)

    expected = background_loss(4.0) + background_loss(4.0) + background_loss(2.0)
    assert sums.classification.item() == pytest.approx(expected, rel=1e-6)
    assert sums.matched.item() == 1


def test_three_negatives_stand_against_each_match():
    sums = loss_sums(torch.zeros(1, 5, 4), CONF, targets([1, 0, 0, 0, 0]))

    expected = background_loss(4.0) + sum(background_loss(odds) for odds in (4, 2, 0))
    assert sums.classification.item() == pytest.approx(expected, rel=1e-6)


def test_an_image_without_objects_teaches_what_is_background():
    sums = loss_sums(torch.zeros(1, 5, 4), CONF, targets([0, 0, 0, 0, 0]))

    assert sums.classification.item() == pytest.approx(
        sum(background_loss(odds) for odds in (4, 2, 0)), rel=1e-6
    )
    assert sums.localisation.item() == 0
    assert sums.matched.item() == 0


def test_negatives_are_counted_image_by_image():
    labels = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    conf = torch.cat([CONF, CONF])

    together = loss_sums(torch.zeros(2, 5, 4), conf, Targets(labels, torch.zeros(2, 5, 4)))
    alone = [
        loss_sums(torch.zeros(1, 5, 4), CONF, Targets(labels[i : i + 1], torch.zeros(1, 5, 4)))
        for i in range(2)
    ]

    total = sum(one.classification for one in alone)
    assert together.classification.item() == pytest.approx(total.item(), rel=1e-6)


def test_boxes_count_at_matched_priors_only_and_by_smooth_l1():
    loc = torch.zeros(1, 5, 4)
    loc[0, 0] = torch.tensor([0.5, -3.0, 0.0, 0.0])
    loc[0, 4] = 100.0

    sums = loss_sums(loc, CONF, targets([1, 0, 0, 0, 0]))

    assert sums.localisation.item() == pytest.approx(0.5 * 0.5**2 + (3 - 0.5), rel=1e-6)


def test_offsets_that_belong_to_nobody_may_be_anything():
    offsets = torch.full((1, 5, 4), torch.inf)
    offsets[0, 0] = 0.0
    loc = torch.zeros(1, 5, 4, requires_grad=True)

    sums = loss_sums(loc, CONF, targets([1, 0, 0, 0, 0], offsets))
    (sums.localisation + sums.classification).backward()

    assert sums.localisation.item() == 0
    assert torch.isfinite(loc.grad).all()


def test_negatives_push_the_background_up_and_easy_ones_do_nothing():
    conf = CONF.clone().requires_grad_()

    loss_sums(
        torch.zeros(1, 5, 4), conf, targets([1, 0, 0, 0, 0]), negatives_per_positive=1
    ).classification.backward()

    assert conf.grad[0, 4, 0] < 0 < conf.grad[0, 4, 1]
    assert conf.grad[0, 0, 1] < 0
    assert not conf.grad[0, 1:4].any()
