"""Files of other networks are refused by name, with what is near and what is not."""

import pytest
import torch
import zoo
from checkpoint_files import INVENTORIES, inventory, saved

from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.checkpoint.families.unsupported import UNSUPPORTED
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.errors import CheckpointError


def refused(path, *keys):
    """The error for a state_dict of these keys."""
    with pytest.raises(CheckpointError) as info:
        load_detector(saved(path / "w.pth", {key: torch.zeros(2, 2) for key in keys}))
    return info.value


RESNET = [
    *("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight"),
    *("layer4.1.conv2.weight", "fc.weight", "fc.bias"),
]


def test_a_resnet_is_called_one_with_what_is_missing_and_unknown(tmp_path):
    error = refused(tmp_path, *RESNET)

    assert "it looks like a torchvision ResNet classifier" in error.message
    assert "the nearest family is torchvision: 0 of its 2 required keys are here" in error.message
    assert "0 of the file's 7 keys are like its own" in error.message
    assert "missing backbone.features.0.0.0.weight" in error.message
    assert "unknown conv1.weight, bn1.weight, layer1.0.conv1.weight and 4 more" in error.message
    assert error.where == str(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        (["classification_headers.0.weight", "base_net.0.0.weight"], "mb1-ssd"),
        (
            [
                "classification_headers.0.0.weight",
                "base_net.0.0.weight",
                "base_net.1.conv.0.weight",
            ],
            "mb2-ssd-lite",
        ),
        (
            ["classification_headers.0.weight", "base_net.0.weight", "base_net.2.weight"],
            "vgg16-ssd",
        ),
        (["classification_headers.0.0.weight", "base_net.3.squeeze.weight"], "squeezenet"),
        (["classification_headers.0.0.weight", "base_net.9.odd.weight"], "backbone that is not"),
        (["box_head.predictor.cls_headers.0.weight", "backbone.vgg.0.weight"], "lufficc/SSD"),
        (
            [
                "box_head.predictor.cls_headers.0.weight",
                "backbone.features.0.0.weight",
                "backbone.features.1.conv.0.0.weight",
            ],
            "MobileNetV2",
        ),
        (
            ["backbone.scale_weight", "head.classification_head.module_list.0.weight"],
            "SSD on VGG16",
        ),
        (["features.1.block.0.0.weight", "classifier.3.weight"], "MobileNetV3 classifier"),
        (["model.0.conv.weight", "model.1.conv.weight"], "YOLO"),
        (["rpn.head.conv.weight", "roi_heads.box_predictor.cls_score.weight"], "Faster R-CNN"),
    ],
)
def test_networks_that_look_like_ours_are_refused_by_name(tmp_path, keys, title):
    error = refused(tmp_path, *keys)

    assert title in error.message
    assert error.hint
    assert "part of a" not in error.hint


def test_something_without_any_likeness_names_the_nearest_family(tmp_path):
    error = refused(tmp_path, "encoder.weight", "extras.0.conv1.weight")

    assert "looks like" not in error.message
    assert "nearest family is qfgaohao" in error.message
    assert "1 of the file's 2 keys" in error.message


def test_a_file_that_lost_a_required_key_names_it(tmp_path):
    keys = [key for key in inventory("qfgaohao_small") if key != "base_net.3.bn3.weight"]

    error = refused(tmp_path, *keys)

    assert "nearest family is qfgaohao: 2 of its 3 required keys" in error.message
    assert "missing base_net.3.bn3.weight" in error.message


def fitting_families(shapes):
    return [f.name for f in FAMILIES if not f.carries_spec and f.signature.fits(shapes)]


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_key_of_a_family_is_like_its_own(name):
    family = next(f for f in FAMILIES if f.name == name.split("_")[0])

    assert not family.signature.unlike(inventory(name))


# these two share their keys: the values decide
SHARED = {"tongyu": ["tongyu", "shaoshengsong"], "shaoshengsong1": ["tongyu", "shaoshengsong"]}


@pytest.mark.parametrize("name", INVENTORIES)
def test_signatures_exclude_each_other(name):
    owner = name.split("_")[0]

    assert fitting_families(inventory(name)) == SHARED.get(owner, [owner])


@zoo.needs_zoo
def test_every_key_list_of_the_zoo_is_recognised_for_what_it_is():
    """One family, one refusal by name, and never two."""
    for folder in sorted(p.parent for p in zoo.ZOO.glob("*/keys.json")):
        shapes = {k: tuple(t.shape) for k, t in zoo.state_dict(folder.name).items()}
        families = fitting_families(shapes)
        owner = folder.name.split("_")[0]
        if owner == "init":
            assert not families, folder.name
            assert any(s.signature.fits(shapes) for s in UNSUPPORTED), folder.name
        else:
            assert families == SHARED.get(owner, [owner]), folder.name
