"""Which levels PriorBox expresses (the figures were measured on the families' own code), and the
numpy form of PriorBox against the real ncnn."""

import dataclasses

import builders
import ncnn_child
import numpy as np
import pytest
from ncnn_graphs import SAMPLES
from reference_specs import (
    compact_spec,
    lufficc_spec,
    qfgaohao_priors,
    qfgaohao_spec,
    torchvision_spec,
    ujsyehao_spec,
)

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_level_priors, build_priors
from mbv3ssd_deploy.core.spec import ClipRule, PriorLevel, PriorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.priors import (
    MEMORY_DATA,
    PRIOR_BOX,
    PriorMode,
    level_corners,
    plan_priors,
    priors_from_priorbox,
)


def layers(plan):
    return [level.layer for level in plan.levels]


def with_priors(spec, **changes):
    return dataclasses.replace(spec, priors=dataclasses.replace(spec.priors, **changes))


def one_level(level, *, frame=(320, 320), clip=ClipRule.NONE):
    spec = builders.tiny_spec(image_size=(320, 320))
    return dataclasses.replace(spec, priors=PriorSpec(*frame, (level,), clip))


LEVEL = PriorLevel(10, 12, 32.0, 25.0, 60.0, 100.0, (2.0, 0.5, 3.0, 1 / 3))


@pytest.mark.parametrize("size", [(320, 320), (96, 96), (224, 416)])
def test_native_priors_are_layers_on_every_level(size):
    plan = plan_priors(builders.tiny_spec(image_size=size), PriorMode.LAYER)

    assert set(layers(plan)) == {PRIOR_BOX}
    assert max(level.worst_error for level in plan.levels) < 3e-7
    assert {level.params["clip"] for level in plan.levels} == {0}


def test_qfgaohao_clamps_in_centre_form_on_three_levels():
    plan = plan_priors(qfgaohao_spec())
    wrong = {level.level: (level.inexact, level.count) for level in plan.levels if level.inexact}

    assert wrong == {1: (114, 600), 3: (18, 54), 4: (16, 24)}
    assert [level.params["clip"] for level in plan.levels if not level.inexact] == [0, 0, 1]
    pixels = [plan.levels[i].worst_error_px for i in (1, 3, 4)]
    np.testing.assert_allclose(pixels, [4.0, 18.9, 57.9], atol=0.1)


def test_qfgaohao_without_its_clamp_is_layers_throughout():
    plan = plan_priors(with_priors(qfgaohao_spec(), clip=ClipRule.NONE))

    assert set(layers(plan)) == {PRIOR_BOX}


def test_rounded_priors_travel_as_constants():
    spec = ujsyehao_spec()
    plan = plan_priors(spec)

    assert set(layers(plan)) == {MEMORY_DATA}
    assert all("rounds corners to whole pixels" in level.reason for level in plan.levels)
    pixels = [level.worst_error_px for level in plan.levels]
    np.testing.assert_allclose(pixels, [0.426, 0.5, 0.487, 0.5, 0.294, 0.5], atol=1e-3)
    corners = np.concatenate([level_corners(spec, i) for i in range(6)])
    np.testing.assert_array_equal(corners, corners_from_centre(build_priors(spec.priors)))


@pytest.mark.parametrize(("spec", "constants"), [(compact_spec(), {4}), (lufficc_spec(), {3, 4})])
def test_compact_and_lufficc_travel_where_they_clip_as_constants(spec, constants):
    plan = plan_priors(spec)

    assert {level.level for level in plan.levels if level.layer == MEMORY_DATA} == constants


def test_torchvision_clamps_sizes_on_two_levels():
    plan = plan_priors(torchvision_spec())

    assert layers(plan) == [PRIOR_BOX] * 3 + [MEMORY_DATA] * 2 + [PRIOR_BOX]
    assert plan.levels[3].worst_error_px == pytest.approx(20.1, abs=0.1)
    assert plan.levels[4].worst_error_px == pytest.approx(61.7, abs=0.1)


def test_the_worst_prior_is_the_worst():
    spec = qfgaohao_spec()
    level = plan_priors(spec).levels[3]
    truth = corners_from_centre(build_level_priors(spec.priors, 3))
    found = priors_from_priorbox(level.params, 3, 3).reshape(-1, 4)
    gaps = np.abs(found - truth).max(axis=1)

    assert gaps[level.worst_prior] == gaps.max() == level.worst_error
    assert "18 of 54 priors" in level.reason
    assert "clips centres and sizes" in level.reason


def test_layer_mode_names_every_level_it_cannot_make():
    with pytest.raises(SpecError, match=r"(?s)3 of 6 levels.*level 1.*level 3.*level 4") as caught:
        plan_priors(qfgaohao_spec(), PriorMode.LAYER)

    assert "level 0" not in caught.value.message
    assert "--priors auto" in caught.value.hint


def test_constant_mode_makes_constants_of_exact_levels_too():
    plan = plan_priors(builders.tiny_spec(), PriorMode.CONSTANT)

    assert set(layers(plan)) == {MEMORY_DATA}
    assert len(plan.runs()) == 1


def test_another_mode_is_a_programmer_s_error():
    with pytest.raises(ValueError, match="somehow"):
        plan_priors(builders.tiny_spec(), "somehow")


def test_neighbouring_constants_travel_together():
    runs = plan_priors(qfgaohao_spec()).runs()

    assert [[plan.level for plan in run] for run in runs] == [[0], [1], [2], [3, 4], [5]]


EXPRESSIBLE = {
    "as it is": LEVEL,
    "no large square": dataclasses.replace(LEVEL, max_size=None),
    "no ratios": dataclasses.replace(LEVEL, ratios=()),
    "wide boxes only": dataclasses.replace(LEVEL, ratios=(2.0, 3.0)),
    "one ratio": dataclasses.replace(LEVEL, ratios=(2.0,)),
    "tall before wide": dataclasses.replace(LEVEL, ratios=(0.5, 2.0)),
    "in odd order": dataclasses.replace(LEVEL, ratios=(2.0, 3.0, 0.5, 1 / 3)),
}


@pytest.mark.parametrize("case", EXPRESSIBLE)
def test_levels_that_priorbox_expresses(case):
    assert layers(plan_priors(one_level(EXPRESSIBLE[case]))) == [PRIOR_BOX]


def test_pairs_of_ratios_are_one_ratio_flipped():
    paired, plain = (
        plan_priors(one_level(EXPRESSIBLE[case])).levels[0].params
        for case in ("as it is", "in odd order")
    )

    assert (paired["aspect_ratios"], paired["flip"]) == ((2.0, 3.0), 1)
    assert (len(plain["aspect_ratios"]), plain["flip"]) == (4, 0)


def test_corner_clipping_is_priorbox_s_own():
    plan = plan_priors(one_level(LEVEL, clip=ClipRule.CORNERS))

    assert layers(plan) == [PRIOR_BOX]
    assert plan.levels[0].params["clip"] == 1


FRAMES = {"halves": (160.5, 160.5), "shares": (1.0, 1.0), "not square": (320.0, 200.0)}


@pytest.mark.parametrize("case", FRAMES)
def test_any_frame_becomes_whole_pixels(case):
    width, height = FRAMES[case]
    level = PriorLevel(8, 8, width / 8, height / 8, width / 5, width / 3, (2.0, 0.5))
    plan = plan_priors(one_level(level, frame=(width, height)))

    assert layers(plan) == [PRIOR_BOX]


def test_a_frame_that_fits_no_pixels_gets_constants():
    level = PriorLevel(8, 8, 12.0, 10.0, 30.0, None, ())
    plan = plan_priors(one_level(level, frame=(100.3, 77.7)))

    assert layers(plan) == [MEMORY_DATA]


def test_the_priors_of_the_table_are_those_of_the_spec():
    assert sum(level.count for level in plan_priors(qfgaohao_spec()).levels) == (
        qfgaohao_priors().count
    )


def test_a_frame_without_whole_sizes_is_named_as_the_cause():
    level = PriorLevel(7, 9, 299.7 / 9, 201.3 / 7, 60.0, 100.0, (2.0, 0.5))
    (plan,) = plan_priors(one_level(level, frame=(299.7, 201.3), clip=ClipRule.CENTRE_FORM)).levels

    assert plan.layer == MEMORY_DATA
    assert "the frame 299.7 x 201.3 has no form in whole pixels" in plan.reason
    assert "clips" not in plan.reason


def test_numbers_too_coarse_for_float32_are_named_as_the_cause():
    level = PriorLevel(1, 1, 320.0, 320.0, 1.1e7, None, (3.0,))
    (plan,) = plan_priors(one_level(level)).levels

    assert plan.layer == MEMORY_DATA
    assert "float32 arithmetic" in plan.reason


# 1e-6 normalised is the tolerance that the priors of a bundle are held to.
TOLERANCE = 5e-7
VARIANCES = (0.1, 0.1, 0.2, 0.2)


def random_case(seed):
    """Parameters, the feature map (cols, rows), and the size of the data blob if there is one."""
    random = np.random.default_rng(seed)
    width, height = (int(random.integers(96, 700)) for _ in range(2))
    cols, rows = (int(random.integers(1, 30)) for _ in range(2))
    sizes = int(random.integers(1, 4))
    smallest = np.sort(random.uniform(8, 300, sizes))
    has_data = bool(random.integers(2))
    params = {
        "min_sizes": tuple(smallest),
        "max_sizes": tuple(smallest * 1.7) if random.integers(2) else (),
        "aspect_ratios": tuple(random.uniform(0.2, 4, int(random.integers(0, 4)))),
        "variances_0": float(random.uniform(0.05, 0.3)),
        "variances_2": float(random.uniform(0.05, 0.3)),
        "flip": int(random.integers(2)),
        "clip": int(random.integers(2)),
        # with one blob, automatic sizes and no max sizes ncnn computes other priors
        "image_width": -233 if has_data else width,
        "image_height": -233 if has_data and random.integers(2) else height,
        "offset": float(random.choice([0.0, 0.5, 0.3])),
        "step_mmdetection": int(random.integers(2)),
        "center_mmdetection": int(random.integers(2)),
    }
    if random.integers(2):
        params |= {"step_width": width / cols, "step_height": float(random.uniform(4, 64))}
    return params, (cols, rows), (width, height) if has_data else None


CASES = [random_case(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def from_ncnn():
    """What the real ncnn computes for all cases, in one network."""
    layers, images = [], {}
    for index, (params, (cols, rows), data) in enumerate(CASES):
        images[f"map{index}"] = np.zeros((1, rows, cols), np.float32)
        blobs = [f"map{index}"]
        if data is not None:
            images[f"data{index}"] = np.zeros((1, data[1], data[0]), np.float32)
            blobs.append(f"data{index}")
        layers.append(build_layer("PriorBox", f"p{index}", tuple(blobs), (f"out{index}",), params))
    inputs = (build_layer("Input", name, (), (name,)) for name in images)
    outputs = [f"out{index}" for index in range(len(CASES))]
    return ncnn_child.run_graph(NcnnGraph((*inputs, *layers)), images, outputs)


def test_the_mirror_equals_ncnn(from_ncnn):
    for index, (params, (cols, rows), data) in enumerate(CASES):
        corners, repeated = from_ncnn[f"out{index}"]
        variances = [params.get(f"variances_{i}", default) for i, default in enumerate(VARIANCES)]

        found = priors_from_priorbox(params, cols, rows, data)

        case = f"seed {index}"
        np.testing.assert_allclose(found, corners, rtol=0, atol=TOLERANCE, err_msg=case)
        np.testing.assert_array_equal(np.resize(np.float32(variances), repeated.shape), repeated)


def test_the_cases_cover_every_switch():
    switches = {name: {case[0].get(name) for case in CASES} for name in ("flip", "clip")}

    assert switches == {"flip": {0, 1}, "clip": {0, 1}}
    assert {len(case[0]["min_sizes"]) for case in CASES} == {1, 2, 3}
    assert {bool(case[0]["max_sizes"]) for case in CASES} == {False, True}
    assert {case[2] is None for case in CASES} == {False, True}


def test_the_order_within_a_cell_is_small_large_wide_tall():
    params = SAMPLES["PriorBox"] | {"aspect_ratios": (4.0,), "image_height": 300}
    corners = priors_from_priorbox(params, 1, 1).reshape(-1, 4) * 300
    sizes = corners[:, 2:] - corners[:, :2]

    side = np.sqrt(60 * 105)
    np.testing.assert_allclose(sizes, [(60, 60), (side, side), (120, 30), (30, 120)], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_sizes": ()}, "0 min sizes"),
        ({"min_sizes": (1.0, 2.0)}, "2 min sizes have 1 max sizes"),
        ({"image_width": -233}, "-233 x 200 pixels"),
    ],
)
def test_what_ncnn_would_read_past_the_end_of_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        priors_from_priorbox(SAMPLES["PriorBox"] | changes, 2, 2)
