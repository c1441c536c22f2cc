import itertools
from pathlib import Path

import pytest
import torch
from builders import tiny_net
from torch import nn

from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.train.config import (
    RECIPES,
    Algorithm,
    Freeze,
    Observer,
    Recipe,
    Schedule,
    TrainRequest,
)
from mbv3ssd_deploy.train.detector import DetectorTask
from mbv3ssd_deploy.train.process import World
from mbv3ssd_deploy.train.state import (
    MovingAverage,
    TrainState,
    build_optimiser,
    learning_rate,
    set_learning_rate,
)

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


def parts_of(net, recipe):
    return DetectorTask(TrainRequest(None, Path("run")), recipe, Observer()).parts(net)


def state_of(net, recipe):
    return TrainState(
        net,
        recipe,
        lambda moved: parts_of(moved, recipe),
        world=World(),
        device=torch.device("cpu"),
    )


def test_the_rate_rises_over_the_warm_up_and_falls_along_a_cosine():
    rates = [learning_rate(COSINE, step, 10) for step in range(100)]

    assert rates[0] == pytest.approx(1 / 21, rel=1e-6)
    assert all(a < b for a, b in itertools.pairwise(rates[:20]))
    assert rates[50] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[21:]))
    assert 0 < rates[-1] < 1e-3


def test_the_rate_ends_at_the_final_share():
    recipe = COSINE.changed(final_lr_share=0.1)

    assert learning_rate(recipe, 99, 10) == pytest.approx(0.1, rel=1e-2)


def test_the_rate_falls_at_the_milestones():
    rates = [learning_rate(STEPS, step, 10) for step in (0, 49, 50, 79, 80, 99)]

    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_norms_and_biases_do_not_decay_and_parts_have_rates_of_their_own():
    net = tiny_net()
    recipe = COSINE.changed(backbone_lr=0.1, extras_lr=0.5, weight_decay=0.02)

    optimiser = build_optimiser(parts_of(net, recipe), recipe)
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
    ("freeze", "trained"),
    [
        (Freeze.NOTHING, {"features", "extra", "head"}),
        (Freeze.BACKBONE, {"extra", "head"}),
        (Freeze.ALL_BUT_HEADS, {"head"}),
    ],
)
def test_frozen_parts_have_no_gradient_and_their_norms_do_not_move(freeze, trained):
    net = tiny_net()
    recipe = COSINE.changed(freeze=freeze)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    parts = {"features": net.backbone.features, "extra": net.backbone.extra, "head": net.head}

    state = state_of(net, recipe)
    state.set_training_mode()
    loc, conf = net(torch.randn(2, 3, 96, 96))
    (loc.square().mean() + conf.square().mean()).backward()
    state.optimiser.step()

    for name, part in parts.items():
        moved = [
            key
            for key, value in part.state_dict().items()
            if not torch.equal(value, before[_prefix(name) + key])
        ]
        assert bool(moved) == (name in trained)
        if name in trained:
            assert any("running_mean" in key for key in moved)


def test_frozen_norms_keep_their_statistics_but_their_weights_are_trained():
    net = tiny_net()

    state_of(net, COSINE.changed(freeze_norms=True)).set_training_mode()

    assert net.training
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(weight.requires_grad for weight in net.parameters())


def test_both_algorithms_are_available():
    net = tiny_net()

    made = [
        build_optimiser(parts_of(net, one), one)
        for one in (COSINE, COSINE.changed(algorithm="adamw"))
    ]

    assert [type(one).__name__ for one in made] == ["SGD", "AdamW"]
    assert made[0].param_groups[0]["momentum"] == 0.9


def test_a_recipe_names_every_value_out_of_range():
    with pytest.raises(SpecError) as caught:
        COSINE.changed(lr=-1.0, momentum=1.5, algorithm="adam", epochs=float("nan"))

    for part in ("lr is -1", "momentum is 1.5", "'adam', not one of sgd, adamw", "epochs is nan"):
        assert part in str(caught.value)


def test_the_named_recipes_are_valid():
    assert next(iter(RECIPES)) == "small-data"
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.description
    assert RECIPES["coco-large"].batch == 192
    assert RECIPES["small-data"].algorithm is Algorithm.ADAMW


def test_the_average_forgets_the_start_and_copies_counters():
    net = nn.BatchNorm2d(1)
    average = MovingAverage(net, decay=0.9)
    values = []

    for step in range(200):
        with torch.no_grad():
            net.weight.fill_(step)
        net.num_batches_tracked.fill_(step)
        average.update(net)
        values.append(average.state["weight"].item())

    # from 1, where BatchNorm's weights begin: d is 1 / 10 at the first step, 2 / 11 at the second
    assert values[0] == pytest.approx(0.1)
    assert values[1] == pytest.approx(0.1 * 2 / 11 + 1 * 9 / 11)
    # of a line that rises by 1 a step, an average of decay 0.9 lags 9 steps behind
    assert values[-1] == pytest.approx(199 - 9, abs=1e-3)
    assert average.state["num_batches_tracked"].item() == 199


def test_an_average_continues_from_a_saved_state():
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


def test_a_recipe_with_milestones_can_change_to_a_cosine():
    changed = RECIPES["lufficc"].changed(schedule="cosine")

    assert changed.schedule is Schedule.COSINE
    assert changed.milestones == ()
