import itertools

import pytest
import torch
from builders import tiny_net
from torch import nn

from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.train.ema import MovingAverage
from mbv3ssd_deploy.train.optimise import (
    build_optimiser,
    freeze_parts,
    learning_rate,
    parts_of_detector,
    set_learning_rate,
    set_training_mode,
)
from mbv3ssd_deploy.train.recipe_table import RECIPES
from mbv3ssd_deploy.train.recipes import Algorithm, Freeze, Recipe, Schedule

COSINE = Recipe("cosine", "", epochs=10, lr=1.0, warmup_epochs=2.0)
STEPS = Recipe(
    "steps",
    "",
    epochs=10,
    lr=1.0,
    warmup_epochs=0.0,
    schedule=Schedule.MULTISTEP,
    milestones=(0.5, 0.8),
)


def test_the_rate_rises_over_the_warm_up_and_falls_along_a_cosine():
    rates = [learning_rate(COSINE, step, 10) for step in range(100)]

    assert rates[0] == pytest.approx(1 / 21, rel=1e-6)
    assert all(a < b for a, b in itertools.pairwise(rates[:20]))
    assert rates[50] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[21:]))
    assert 0 < rates[-1] < 1e-3


def test_the_rate_ends_where_it_was_told_to():
    recipe = COSINE.changed(final_lr_share=0.1)

    assert learning_rate(recipe, 99, 10) == pytest.approx(0.1, rel=1e-2)


def test_the_rate_falls_at_the_milestones():
    rates = [learning_rate(STEPS, step, 10) for step in (0, 49, 50, 79, 80, 99)]

    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_norms_and_biases_do_not_decay_and_parts_have_rates_of_their_own():
    net = tiny_net()
    recipe = COSINE.changed(backbone_lr=0.1, extras_lr=0.5, weight_decay=0.02)

    optimiser = build_optimiser(parts_of_detector(net, recipe), recipe)
    set_learning_rate(optimiser, 2.0)

    settings = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for weight in group["params"]
    }
    names = dict(net.named_parameters())
    assert len(settings) == len(names)
    for name, weight in names.items():
        rate = {"backbone.f": 0.2, "backbone.e": 1.0, "head.class": 2.0, "head.regre": 2.0}
        assert settings[id(weight)] == (rate[name[:10]], 0.02 if weight.ndim == 4 else 0.0)


@pytest.mark.parametrize(
    ("freeze", "learning"),
    [
        (Freeze.NOTHING, {"features", "extra", "head"}),
        (Freeze.BACKBONE, {"extra", "head"}),
        (Freeze.ALL_BUT_HEADS, {"head"}),
    ],
)
def test_what_is_frozen_has_no_gradient_and_its_norms_do_not_move(freeze, learning):
    net = tiny_net()
    recipe = COSINE.changed(freeze=freeze)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    parts = {"features": net.backbone.features, "extra": net.backbone.extra, "head": net.head}

    freeze_parts(net, freeze)
    set_training_mode(net, recipe)
    optimiser = build_optimiser(parts_of_detector(net, recipe), recipe)
    loc, conf = net(torch.randn(2, 3, 96, 96))
    (loc.square().mean() + conf.square().mean()).backward()
    optimiser.step()

    for name, part in parts.items():
        moved = [
            key
            for key, value in part.state_dict().items()
            if not torch.equal(value, before[_prefix(name) + key])
        ]
        assert bool(moved) == (name in learning)
        if name in learning:
            assert any("running_mean" in key for key in moved)


def test_frozen_norms_keep_their_statistics_and_go_on_learning_their_weights():
    net = tiny_net()

    set_training_mode(net, COSINE.changed(freeze_norms=True))

    assert net.training
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(weight.requires_grad for weight in net.parameters())


def test_both_algorithms_are_to_be_had():
    net = tiny_net()

    made = [
        build_optimiser(parts_of_detector(net, one), one)
        for one in (COSINE, COSINE.changed(algorithm="adamw"))
    ]

    assert [type(one).__name__ for one in made] == ["SGD", "AdamW"]
    assert made[0].param_groups[0]["momentum"] == 0.9


def test_a_recipe_names_all_that_makes_no_sense():
    with pytest.raises(SpecError) as caught:
        COSINE.changed(lr=-1.0, momentum=1.5, algorithm="adam", epochs=float("nan"))

    for part in ("lr is -1", "momentum is 1.5", "'adam', not one of sgd, adamw", "epochs is nan"):
        assert part in str(caught.value)


def test_the_named_recipes_make_sense():
    assert next(iter(RECIPES)) == "small-data"
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.description
    assert RECIPES["coco-large"].batch == 192
    assert RECIPES["small-data"].algorithm is Algorithm.ADAMW


def test_the_average_forgets_the_start_and_copies_counters():
    net = nn.BatchNorm2d(1)
    average = MovingAverage(net, decay=0.9)
    seen = []

    for step in range(200):
        with torch.no_grad():
            net.weight.fill_(step)
        net.num_batches_tracked.fill_(step)
        average.update(net)
        seen.append(average.state["weight"].item())

    # from 1, where BatchNorm's weights begin: d is 1 / 10 at the first step, 2 / 11 at the second
    assert seen[0] == pytest.approx(0.1)
    assert seen[1] == pytest.approx(0.1 * 2 / 11 + 1 * 9 / 11)
    # of a line that rises by 1 a step, an average of decay 0.9 lags 9 steps behind
    assert seen[-1] == pytest.approx(199 - 9, abs=1e-3)
    assert average.state["num_batches_tracked"].item() == 199


def test_an_average_goes_on_from_what_was_saved():
    net = nn.Linear(2, 2)
    one, other = MovingAverage(net, 0.9), MovingAverage(net, 0.9)
    for _ in range(3):
        with torch.no_grad():
            net.weight.add_(1.0)
        one.update(net)

    other.restore(one.state, one.steps)
    for average in (one, other):
        average.update(net)

    assert torch.equal(one.state["weight"], other.state["weight"])


def _prefix(name):
    return "head." if name == "head" else f"backbone.{name}."


def test_a_recipe_with_milestones_becomes_a_cosine_whole():
    changed = RECIPES["lufficc"].changed(schedule="cosine")

    assert changed.schedule is Schedule.COSINE
    assert changed.milestones == ()
