"""Each family: its key inventory fills the net, and the original's numbers come out."""

import dataclasses
import math
import re

import builders
import numpy as np
import pytest
import torch
import zoo
from checkpoint_files import INVENTORIES, inventory, saved, state_dict
from reference_specs import ZOO_SPECS

from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import (
    Backbone,
    ClipRule,
    PriorRounding,
    ResizeRule,
    ResultOrder,
    Tap,
    TapPlace,
)
from mbv3ssd_deploy.errors import CheckpointError, SpecError

FIXTURES = ("torchvision_fulltail", "shaoshengsong1_small", "ujsyehao_config", *INVENTORIES)
SMALL = ("torchvision_small", "qfgaohao_small")


@pytest.mark.parametrize("name", INVENTORIES)
def test_the_key_inventory_maps_cleanly_onto_every_tensor(tmp_path, name):
    weights = state_dict(name)

    loaded = load_detector(saved(tmp_path / "w.pth", weights))

    assert loaded.report.is_clean
    assert all(re.search(r"\.(linear3|bn3|linear4)\.", key) for key in loaded.report.dropped)
    assert {*loaded.report.renamed, *loaded.report.dropped} == set(weights)
    state = loaded.net.state_dict()
    assert set(loaded.report.renamed.values()) == set(state)
    for key, new in loaded.report.renamed.items():
        assert torch.equal(state[new].flatten(), weights[key].flatten())
    assert not loaded.net.training
    # tongyu's keys with statistics as these have, of inputs about as large as 1
    family = name.split("_")[0].replace("tongyu", "shaoshengsong")
    assert loaded.checkpoint.family == family


@zoo.needs_zoo
@pytest.mark.parametrize("name", FIXTURES)
def test_raw_heads_and_priors_are_the_originals(tmp_path, name):
    loaded = load_detector(saved(tmp_path / "w.pth", zoo.state_dict(name)))
    oracle = zoo.oracle(name)

    with torch.no_grad():
        loc, conf = loaded.net(torch.from_numpy(zoo.synthetic_input(name)))

    np.testing.assert_allclose(loc[0], oracle["syn_loc"], atol=5e-4, rtol=1e-3)
    np.testing.assert_allclose(conf[0], oracle["syn_logits"], atol=5e-4, rtol=1e-3)
    priors = build_priors(loaded.spec.priors)
    np.testing.assert_allclose(priors, oracle["priors_f32"], atol=1e-6, rtol=0)
    # these find the original's detections: tests/core/test_zoo_detections.py
    proven = ZOO_SPECS[name]
    assert loaded.spec.family == name.split("_")[0].removesuffix("1")
    assert loaded.spec.input == proven.input
    assert loaded.spec.coder == proven.coder
    assert loaded.spec.decode == proven.decode


@zoo.needs_zoo
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", [*SMALL, "ujsyehao_released", "lufficc_large"])
def test_files_as_their_families_write_them_load(tmp_path, monkeypatch, name, legacy):
    monkeypatch.syspath_prepend(str(zoo.ZOO))
    path = tmp_path / "w.pth"
    wrap = zoo._module("wrap")
    torch.save(wrap.build(str(zoo.ZOO / name)), path, _use_new_zipfile_serialization=not legacy)

    loaded = load_detector(path)

    assert loaded.checkpoint.container == ("torch legacy" if legacy else "torch zip")
    expected = zoo.state_dict(name)
    state = loaded.net.state_dict()
    for key, new in loaded.report.renamed.items():
        assert torch.equal(state[new].flatten(), expected[key].flatten())


def test_torchvisions_spec_with_the_reduced_tail(tmp_path):
    spec = load_detector(saved(tmp_path / "w.pth", state_dict("torchvision_coco"))).spec

    assert spec.arch.reduced_tail
    assert spec.arch.backbone is Backbone.LARGE
    assert spec.arch.taps == (Tap(13, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT))
    assert (spec.input.height, spec.input.width) == (320, 320)
    assert spec.input.mean == spec.input.std == (127.5, 127.5, 127.5)
    assert spec.input.resize is ResizeRule.FLOAT_AFTER_NORMALISE
    assert spec.priors.count == 3234
    assert spec.priors.clip is ClipRule.SIZES
    assert spec.coder.max_log_size == math.log(1000 / 16)
    assert spec.decode.score_threshold == 0.001
    assert spec.decode.clip_before_nms
    assert spec.class_names[:3] == ("background", "person", "bicycle")
    assert spec.class_names[11:14] == ("fire hydrant", "N/A 12", "stop sign")
    assert spec.class_names[90] == "toothbrush"


def test_every_unused_coco_id_carries_its_own_number(tmp_path):
    names = load_detector(
        saved(tmp_path / "w.pth", state_dict("torchvision_coco"))
    ).spec.class_names

    holes = [place for place, name in enumerate(names) if name.startswith("N/A")]
    assert holes == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert all(names[place] == f"N/A {place}" for place in holes)
    assert len(names) == 91


def test_qfgaohaos_spec(tmp_path):
    loaded = load_detector(saved(tmp_path / "w.pth", state_dict("qfgaohao_small")))
    spec = loaded.spec

    assert spec.input.mean == (127.0,) * 3
    assert spec.input.std == (128.0,) * 3
    assert spec.input.resize is ResizeRule.CV2_U8
    assert [level.step_x for level in spec.priors.levels] == [16, 32, 64, 100, 150, 300]
    assert [level.rows for level in spec.priors.levels] == [19, 10, 5, 3, 2, 1]
    assert spec.priors.count == 3000
    assert spec.priors.clip is ClipRule.CENTRE_FORM
    assert spec.decode.candidates_per_class == 200
    assert spec.decode.iou_epsilon == 1e-5
    assert spec.decode.keep_total is None
    assert spec.decode.order is ResultOrder.CLASS
    assert spec.class_names[1] == "class_1"
    assert "base_net.14.weight is [576, 96, 1, 1]: MobileNetV3-Small" in loaded.checkpoint.evidence
    assert any("--labels" in notice for notice in loaded.notices)
    assert loaded.provenance["class_names"] == "head channels"


def test_torchvision_takes_any_image_size_and_keeps_boxes_as_shares_of_each_side(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("torchvision_small"))

    spec = load_detector(path, LoadOptions(image_size=(240, 416))).spec

    assert (spec.input.height, spec.input.width) == (240, 416)
    first = spec.priors.levels[0]
    assert (first.rows, first.cols) == (15, 26)
    priors = build_priors(spec.priors)
    # the square of the first level is a fifth of the width, and a fifth of the height
    np.testing.assert_allclose(priors[0], [0.5 / 26, 0.5 / 15, 0.2, 0.2])


def test_a_width_multiplier_is_read_from_the_extras(tmp_path):
    spec = builders.tiny_spec(num_classes=5, width_mult=0.5)
    path = saved(tmp_path / "w.pth", builders.tiny_net(spec=spec).state_dict())

    arch = load_detector(path).spec.arch

    assert arch.width_mult == 0.5
    assert arch == spec.arch


def test_the_prior_table_of_qfgaohao_binds_the_image_size(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("qfgaohao_small"))

    with pytest.raises(SpecError, match="300 x 300 only, not 320 x 320") as info:
        load_detector(path, LoadOptions(image_size=(320, 320)))

    assert "--spec" in info.value.hint


def test_own_priors_lift_the_size_that_qfgaohaos_table_binds(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("qfgaohao_small"))
    base = load_detector(path).spec.priors
    levels = [
        dataclasses.asdict(level) | {"rows": n, "cols": n}
        for level, n in zip(base.levels, (20, 10, 5, 3, 2, 1), strict=True)
    ]
    changes = {"priors": {"levels": levels, "frame_width": 320, "frame_height": 320}}

    loaded = load_detector(path, LoadOptions(image_size=(320, 320), spec_changes=changes))

    assert loaded.spec.priors.levels[0].rows == 20
    assert loaded.spec.priors.frame_width == 320
    assert loaded.provenance["priors.levels"] == "--spec"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "torchvision_small",
            {"head__classification_head__module_list__2__1__weight": (128, 512, 1, 1)},
            "level 2: 128 class channels do not divide by 6 boxes per cell",
        ),
        (
            "torchvision_small",
            {"head__classification_head__module_list__2__1__weight": (120, 512, 1, 1)},
            r"no class count: level 0: 126 / 6 = 21; level 1: .*level 2: 120 / 6 = 20",
        ),
        (
            "qfgaohao_small",
            {"regression_headers__5__weight": (22, 64, 1, 1)},
            "level 5: 22 regression channels are not a multiple of 4",
        ),
        (
            "qfgaohao_small",
            {"classification_headers__5__weight": None, "regression_headers__1__3__weight": None},
            r"missing: regression_headers\.1\.3\.weight, classification_headers\.5\.w",
        ),
        (
            "qfgaohao_small",
            {"base_net__14__weight": None},
            r"neither base_net\.18\.weight nor base_net\.14\.weight exists",
        ),
        (
            "torchvision_small",
            {"backbone__features__0__9__0__weight": None},
            "on a backbone other than MobileNetV3",
        ),
        (
            "torchvision_small",
            {"backbone__features__1__3__0__weight": (500, 96, 1, 1)},
            "have 16 and 500 channels; a small network with these .* 16 and 576 or 16 and 288",
        ),
    ],
)
def test_channels_that_fit_nothing_are_refused_with_their_numbers(tmp_path, name, changes, message):
    path = saved(tmp_path / "w.pth", state_dict(name, **changes))

    with pytest.raises(CheckpointError, match=message) as info:
        load_detector(path)

    assert info.value.where == str(path)


def test_boxes_per_cell_other_than_the_priors_are_refused_level_by_level(tmp_path):
    weights = state_dict("qfgaohao_small")
    for level, item in ((0, ".3"),):
        for kind, channels in (("classification", 4 * 21), ("regression", 4 * 4)):
            for leaf in ("weight", "bias"):
                key = f"{kind}_headers.{level}{item}.{leaf}"
                weights[key] = weights[key][:channels]

    with pytest.raises(SpecError, match=r"predict 4-6-6-6-6-6 .* have 6-6-6-6-6-6") as info:
        load_detector(saved(tmp_path / "w.pth", weights))

    assert "--spec" in info.value.hint


def test_all_that_a_file_lacks_is_said_at_once(tmp_path):
    weights = state_dict(
        "qfgaohao_small",
        base_net__5__conv2__weight=None,
        base_net__6__conv2__weight=(96, 1, 3, 3),
        extras__9__conv1__weight=(8, 8, 1, 1),
    )

    with pytest.raises(CheckpointError) as info:
        load_detector(saved(tmp_path / "w.pth", weights))

    message = info.value.message
    assert "1 tensor is missing: base_net.5.conv2.weight;" in message
    assert "1 key is unknown: extras.9.conv1.weight" in message
    assert "base_net.6.conv2.weight is [96, 1, 3, 3], the network wants [96, 1, 5, 5]" in message


def test_the_first_statistics_distinguish_tongyu_and_shaoshengsong(tmp_path):
    """The keys are the same; a network fed whole pixels saw a variance some 16000 times larger."""
    weights = state_dict("tongyu_small")
    small = load_detector(saved(tmp_path / "small.pth", weights))
    weights["base_net.1.running_var"] = weights["base_net.1.running_var"] * 128**2
    large = load_detector(saved(tmp_path / "large.pth", weights))

    assert small.spec.family == "shaoshengsong"
    assert small.spec.input.std == (128.0,) * 3
    assert large.spec.family == "tongyu"
    assert large.spec.input.std == (1.0,) * 3
    assert any(
        "(below 40): trained on (pixel - 127) / 128" in line for line in small.checkpoint.evidence
    )
    assert any(
        "(not below 40): trained on pixel - 127, as t" in line for line in large.checkpoint.evidence
    )
    assert dataclasses.replace(small.spec, family="tongyu", input=large.spec.input) == large.spec


@pytest.mark.parametrize(
    "variances", [torch.full((16,), float("nan")), torch.zeros(16), torch.ones(4)]
)
def test_statistics_that_decide_nothing_ask_for_the_family(tmp_path, variances):
    weights = state_dict("tongyu_small") | {"base_net.1.running_var": variances}

    with pytest.raises(CheckpointError, match="keys are those of tongyu and of shaosh") as info:
        load_detector(saved(tmp_path / "w.pth", weights))

    assert "does not show whether it was trained on pixel - 127 (tongyu)" in info.value.message
    assert info.value.hint == "--family tongyu or --family shaoshengsong"


def test_the_family_asked_for_outranks_the_statistics_and_shows_them(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("tongyu_small"))

    loaded = load_detector(path, LoadOptions(family="tongyu"))

    assert loaded.spec.input.std == (1.0,) * 3
    assert loaded.checkpoint.evidence[0] == "--family tongyu"
    assert "as shaoshengsong" in loaded.checkpoint.evidence[2]


def test_tongyus_large_second_head_does_not_see_the_last_activation(tmp_path):
    loaded = load_detector(saved(tmp_path / "w.pth", state_dict("tongyu_large")))

    with torch.no_grad():
        maps = loaded.net.backbone(torch.zeros(1, 3, 300, 300))
        after = loaded.net.backbone.extra[0](torch.nn.functional.hardswish(maps[1]))

    assert loaded.spec.arch.taps[1].place is TapPlace.BEFORE_ACTIVATION
    assert maps[1].min() < -3 / 8  # h-swish never goes below
    torch.testing.assert_close(after, maps[2])


def with_boxes(weights, boxes, classes=21):
    """`weights` of ujsyehao with another number of boxes per cell, level by level."""
    for level, count in enumerate(boxes):
        for kind, values in (("cls", classes), ("reg", 4)):
            for leaf in ("weight", "bias"):
                key = f"bbox_head.{kind}_convs.{level}.3.{leaf}"
                repeats = [3] + [1] * (weights[key].dim() - 1)
                weights[key] = weights[key].repeat(*repeats)[: count * values]
    return weights


@pytest.mark.parametrize(("last", "count"), [(4, 2268), (6, 2278)])
def test_both_prior_tables_of_ujsyehao_are_chosen_by_their_heads(tmp_path, last, count):
    boxes = (4, 6, 6, 6, last, last)
    weights = with_boxes(state_dict("ujsyehao_released"), boxes)

    spec = load_detector(saved(tmp_path / "w.pth", weights)).spec

    assert tuple(level.boxes_per_cell for level in spec.priors.levels) == boxes
    assert spec.priors.count == count
    assert spec.priors.rounding is PriorRounding.PIXEL_CORNERS
    assert [level.step_x for level in spec.priors.levels] == [16, 30, 60, 100, 150, 300]


def test_a_prior_table_that_ujsyehao_never_had_is_refused(tmp_path):
    weights = with_boxes(state_dict("ujsyehao_released"), (6, 6, 6, 6, 4, 4))

    with pytest.raises(SpecError, match=r"predict 6-6-6-6-4-4 .* have 4-6-6-6-6-6"):
        load_detector(saved(tmp_path / "w.pth", weights))


def plain_headed(boxes=(4, 6, 6, 6, 6, 6), classes=21):
    """A ujsyehao file whose heads are one 3x3 convolution a level."""
    separable = state_dict("ujsyehao_released")
    weights = {key: t for key, t in separable.items() if not key.startswith("bbox_head.")}
    for level, count in enumerate(boxes):
        channels = separable[f"bbox_head.cls_convs.{level}.0.weight"].shape[0]
        for kind, values in (("cls", classes), ("reg", 4)):
            name = f"bbox_head.{kind}_convs.{level}"
            shapes = {
                f"{name}.weight": (count * values, channels, 3, 3),
                f"{name}.bias": (count * values,),
            }
            weights |= builders.seeded_state_dict(shapes)
    return weights


@torch.no_grad()
def test_ujsyehao_without_depthwise_heads_has_one_convolution_a_level(tmp_path):
    weights = plain_headed()
    names = tuple(f"thing {n}" for n in range(20))
    entries = {"meta": {"CLASSES": names, "mmdet_version": "0.6.0"}, "state_dict": weights}

    loaded = load_detector(saved(tmp_path / "w.pth", entries))

    assert loaded.report.is_clean
    assert loaded.spec.arch.layout == "ujsyehao_plain"
    assert loaded.spec.priors.count == 2278
    assert loaded.spec.class_names == ("background", *names)
    maps = loaded.net.backbone(torch.zeros(1, 3, 300, 300))
    first = torch.nn.functional.conv2d(
        maps[1],
        weights["bbox_head.reg_convs.1.weight"],
        weights["bbox_head.reg_convs.1.bias"],
        padding=1,
    )
    torch.testing.assert_close(loaded.net.head.regression_head.module_list[1](maps[1]), first)


def test_the_classifier_inside_a_ujsyehao_file_is_dropped_with_the_reason(tmp_path):
    weights = state_dict("ujsyehao_released", bbox_head__loss_weights=(2,))

    dropped = load_detector(saved(tmp_path / "w.pth", weights)).report.dropped

    assert "no detector runs" in dropped["backbone.linear4.weight"]
    assert "losses" in dropped["bbox_head.loss_weights"]
    assert len(dropped) == 10


def test_the_cells_of_compact_hold_two_wide_boxes_then_two_tall_ones(tmp_path):
    spec = load_detector(saved(tmp_path / "w.pth", state_dict("compact_large"))).spec

    assert [level.ratios for level in spec.priors.levels] == [(2, 0.5)] + [(2, 3, 0.5, 0.333)] * 5
    assert spec.priors.count == 2278
    last = build_priors(spec.priors)[-6:]
    np.testing.assert_allclose(last[1], [0.5, 0.5, 1, 1])  # the second square is the whole image


def test_lufficcs_priors_are_for_320(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("lufficc_large"))

    spec = load_detector(path).spec

    assert (spec.input.height, spec.priors.frame_width, spec.priors.count) == (320, 320, 3234)
    assert [level.step_x for level in spec.priors.levels] == [16, 32, 64, 107, 160, 320]
    with pytest.raises(SpecError, match="320 x 320 only, not 300 x 300"):
        load_detector(path, LoadOptions(image_size=(300, 300)))


def test_missing_batch_counters_are_fine(tmp_path):
    weights = {k: t for k, t in state_dict("qfgaohao_small").items() if "num_batches" not in k}

    loaded = load_detector(saved(tmp_path / "w.pth", weights))

    assert loaded.report.is_clean
    assert loaded.net.backbone.features[0][0][1].num_batches_tracked.item() == 0


def test_the_net_does_not_hang_on_the_file(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("torchvision_small"))
    net = load_detector(path).net
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}

    path.write_bytes(b"\0" * path.stat().st_size)  # in place: a mapped file would change with it

    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


def test_inventories_differ_where_their_backbones_do():
    large, small = inventory("qfgaohao_large"), inventory("qfgaohao_small")

    assert large["base_net.18.weight"] == (960, 160, 1, 1)
    assert small["base_net.14.weight"] == (576, 96, 1, 1)
