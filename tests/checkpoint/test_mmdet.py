"""mmdetection 2.x and 3.x against a model of our own that follows their documented layout."""

import builders
import mmdet_reference as reference
import numpy as np
import pytest
import torch
from checkpoint_files import saved

from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.detections import detections_from_heads
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import TapPlace
from mbv3ssd_deploy.errors import CheckpointError

CLASSES = ("cat", "dog", "cow")
WORDS = {
    "mmcls small": ("mmdet", "48 channels of layer8, the second the 576 of layer12"),
    "mmcls large, l2 norm": (
        "mmdet_l2norm",
        "112 channels of layer12, the second the 960 of layer16",
    ),
    "mmdet small, cut in two": (
        "mmdet_expanding_quarter",
        "144 channels of the expansion in layer9",
    ),
    "early mmcls large": ("mmdet_early", "112 channels of layer12, the second the 160 of layer15"),
    "four boxes": ("mmdet", "48 channels of layer8, the second the 96 of layer11"),
}


def detector(variant, seed=0):
    net = reference.Detector(variant, len(CLASSES))
    net.load_state_dict(
        {
            key: builders.seeded_tensor(key, tuple(t.shape), seed)
            for key, t in net.state_dict().items()
        }
    )
    return net.eval()


def entries(net, **meta):
    return {"meta": meta, "state_dict": net.state_dict(), "optimizer": {"state": {}}}


@pytest.mark.parametrize("name", reference.VARIANTS)
@torch.no_grad()
def test_heads_and_priors_are_those_of_the_documented_layout(tmp_path, name):
    variant = reference.VARIANTS[name]
    net = detector(variant)
    image = torch.from_numpy(np.random.default_rng(5).normal(size=(1, 3, 320, 320)))
    logits, deltas = net(image.float())

    loaded = load_detector(saved(tmp_path / "w.pth", entries(net, CLASSES=CLASSES)))
    loc, conf = loaded.net(image.float())

    scale = float(logits.abs().max())
    torch.testing.assert_close(conf, logits.roll(1, dims=2), atol=1e-5 * scale, rtol=1e-4)
    torch.testing.assert_close(loc, deltas, atol=1e-5 * scale, rtol=1e-4)
    priors = corners_from_centre(build_priors(loaded.spec.priors)) * 320
    np.testing.assert_allclose(priors, reference.anchors(variant.boxes), atol=1e-9)
    layout, words = WORDS[name]
    assert loaded.spec.arch.layout == layout
    assert any(words in line for line in loaded.checkpoint.evidence)
    assert not loaded.report.dropped.keys() - {
        key for key in net.state_dict() if "backbone.layer12." in key
    }


def test_detections_are_those_of_the_documented_rules(tmp_path):
    boxes = reference.VARIANTS["four boxes"].boxes
    net = detector(reference.VARIANTS["four boxes"])
    spec = load_detector(saved(tmp_path / "w.pth", entries(net))).spec
    # heads of trained size: a few classes stand out, boxes move by about their prior
    random = np.random.default_rng(5)
    logits = random.normal(0, 2, (spec.priors.count, spec.num_classes))
    logits[:, -1] += 6
    deltas = random.normal(0, 2, (spec.priors.count, 4))

    found = detections_from_heads(
        deltas.astype(np.float32), np.roll(logits, 1, axis=1).astype(np.float32), spec
    )

    wanted = reference.detect(logits, deltas, boxes)
    assert 50 < len(wanted) <= 200
    assert [label + 1 for _, label, _ in wanted] == found.labels.tolist()
    np.testing.assert_allclose(found.scores, [score for score, _, _ in wanted], atol=1e-6)
    np.testing.assert_allclose(found.boxes * 320, [box for _, _, box in wanted], atol=1e-3)


def test_it_says_that_it_was_never_run_against_the_original(tmp_path):
    net = detector(reference.VARIANTS["mmcls small"])

    loaded = load_detector(saved(tmp_path / "w.pth", entries(net)))

    assert any("never run against the original" in notice for notice in loaded.notices)
    assert any("last class of the file" in line for line in loaded.checkpoint.evidence)
    assert "never run against the original" in loaded.checkpoint.evidence[1]
    assert loaded.spec.class_names == ("background", "class_1", "class_2", "class_3")


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": CLASSES},
        {"dataset_meta": {"classes": CLASSES}, "mmengine_version": "0.7.0"},
        {"dataset_meta": {"CLASSES": list(CLASSES)}},
    ],
)
def test_the_class_names_of_the_data_set_are_in_the_file(tmp_path, meta):
    net = detector(reference.VARIANTS["mmcls small"])
    path = saved(tmp_path / "w.pth", entries(net, **meta))

    loaded = load_detector(path)

    assert loaded.spec.class_names == ("background", *CLASSES)
    assert loaded.provenance["class_names"] == "file"
    flagged = load_detector(path, LoadOptions(class_names=("x", "y", "z")))
    assert flagged.spec.class_names[1:] == ("x", "y", "z")
    assert flagged.provenance["class_names"] == "flag"


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "a"), ("a", " ", "c")])
def test_class_names_that_do_not_fit_the_heads_are_left_and_said(tmp_path, names):
    net = detector(reference.VARIANTS["mmcls small"])

    loaded = load_detector(saved(tmp_path / "w.pth", entries(net, CLASSES=names)))

    assert loaded.spec.class_names[1] == "class_1"
    assert any("class names in the file were left" in notice for notice in loaded.notices)


def test_the_second_copy_that_the_ema_hook_keeps_is_left(tmp_path):
    state = detector(reference.VARIANTS["mmcls small"]).state_dict()
    copy = {f"ema_{key.replace('.', '_')}": tensor for key, tensor in state.items()}

    loaded = load_detector(saved(tmp_path / "w.pth", {"state_dict": state | copy}))

    assert len(loaded.report.dropped) == len(copy)
    assert any("the averaged ones under the plain keys" in notice for notice in loaded.notices)
    assert load_detector(tmp_path / "w.pth", LoadOptions(ema=True)).report == loaded.report


def test_a_network_of_other_widths_is_refused_with_them(tmp_path):
    state = detector(reference.VARIANTS["mmcls small"]).state_dict()
    key = "backbone.layer5.depthwise_conv.conv.weight"
    state[key] = torch.zeros(200, 1, 5, 5)

    with pytest.raises(CheckpointError, match=r"16, 72, 88, 96, 200, 240") as info:
        load_detector(saved(tmp_path / "w.pth", {"state_dict": state}))

    assert "docs/adding.md" in info.value.hint


@pytest.mark.parametrize(
    ("level", "message"),
    [(0, "50 channels, and no block of stride 16"), (1, "the last block has 96, the last conv")],
)
def test_heads_on_channels_that_no_layer_has_are_refused(tmp_path, level, message):
    state = detector(reference.VARIANTS["mmcls small"]).state_dict()
    state[f"bbox_head.cls_convs.{level}.0.conv.weight"] = torch.zeros(50, 1, 3, 3)

    with pytest.raises(CheckpointError, match=message):
        load_detector(saved(tmp_path / "w.pth", {"state_dict": state}))


def test_the_expansion_of_the_block_that_strides_can_be_tapped(tmp_path):
    net = detector(reference.VARIANTS["mmdet small, cut in two"])

    taps = load_detector(saved(tmp_path / "w.pth", entries(net))).spec.arch.taps

    assert (taps[0].feature, taps[0].place) == (9, TapPlace.EXPANSION)
    assert (taps[1].feature, taps[1].place) == (12, TapPlace.OUTPUT)
