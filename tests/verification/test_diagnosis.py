"""The usual mistakes are recognised in their heads, and only there."""

import numpy as np
import pytest
from reference_specs import qfgaohao_spec

from mbv3ssd_deploy.core.priors import level_slices
from mbv3ssd_deploy.verification.diagnosis import diagnosed_heads
from mbv3ssd_deploy.verification.rules import Code

SPEC = qfgaohao_spec(num_classes=4)
SLICES = level_slices(SPEC.priors)


@pytest.fixture
def heads():
    rng = np.random.default_rng(1)
    shapes = {"loc": (3000, 4), "conf": (3000, 4)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def broken(heads, name, level, mistake):
    changed = {key: value.copy() for key, value in heads.items()}
    changed[name][SLICES[level]] = mistake(heads[name][SLICES[level]])
    return changed


def test_equal_heads_have_no_diagnosis(heads):
    assert diagnosed_heads(heads, heads, SPEC) == ()


def test_noise_has_no_diagnosis(heads):
    noisy = {name: value + np.float32(0.5) for name, value in heads.items()}

    assert diagnosed_heads(heads, noisy, SPEC) == ()


@pytest.mark.parametrize("name", ["loc", "conf"])
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda x: x.reshape(25, 24).T.reshape(150, 4), "without the Permute"),
        (lambda x: x.reshape(5, 5, 24).transpose(1, 0, 2).reshape(150, 4), "rows and columns"),
        (lambda x: x.reshape(25, 6, 4).transpose(0, 2, 1).reshape(150, 4), "value by value"),
    ],
)
def test_a_transposed_level_is_named(heads, name, mistake, words):
    (reason,) = diagnosed_heads(heads, broken(heads, name, 2, mistake), SPEC)

    assert reason.code is Code.HEAD_TRANSPOSED
    assert reason.text.startswith(f"{name} of level 2")
    assert words in reason.text


def test_two_classes_exchanged_are_named(heads):
    swapped = heads | {"conf": heads["conf"][:, [0, 3, 2, 1]]}

    reasons = diagnosed_heads(heads, swapped, SPEC)

    assert [reason.code for reason in reasons] == [Code.CLASSES_EXCHANGED] * 2
    assert "scores of 'class_3' are in the place of 'class_1'" in reasons[0].text


def test_a_diagnosis_survives_the_noise_of_half_precision(heads):
    rng = np.random.default_rng(2)
    swapped = heads["conf"][:, [0, 2, 1, 3]]
    noisy = heads | {"conf": swapped + rng.normal(size=swapped.shape).astype(np.float32) * 0.005}

    reasons = diagnosed_heads(heads, noisy, SPEC)

    assert {reason.code for reason in reasons} == {Code.CLASSES_EXCHANGED}


def test_nan_heads_have_no_diagnosis(heads):
    odd = heads | {"conf": np.full_like(heads["conf"], np.nan)}

    assert diagnosed_heads(heads, odd, SPEC) == ()
