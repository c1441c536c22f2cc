import dataclasses

import numpy as np
import pytest
import torch
import zoo
from builders import class_names, tiny_input, tiny_net, tiny_spec

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.core.spec import Backbone, PriorSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.build import build_net
from mbv3ssd_deploy.nets.plan import feature_map_sizes

TORCHVISION = [
    ("torchvision_coco", Backbone.LARGE, 91, True),
    ("torchvision_fulltail", Backbone.LARGE, 21, False),
    ("torchvision_small", Backbone.SMALL, 21, False),
]


@zoo.needs_zoo
@pytest.mark.parametrize(("folder", "backbone", "classes", "reduced"), TORCHVISION)
def test_the_native_net_is_torchvisions_in_names_shapes_and_numbers(
    folder, backbone, classes, reduced
):
    net = build_net(native_spec(backbone, class_names(classes), reduced_tail=reduced)).eval()
    net.load_state_dict(zoo.state_dict(folder), strict=True)
    oracle = zoo.oracle(folder)

    with torch.no_grad():
        loc, conf = net(torch.from_numpy(zoo.synthetic_input(folder)))

    np.testing.assert_allclose(loc[0], oracle["syn_loc"], atol=5e-4, rtol=1e-3)
    np.testing.assert_allclose(conf[0], oracle["syn_logits"], atol=5e-4, rtol=1e-3)


def test_heads_have_one_row_a_prior_for_every_image_of_a_batch():
    spec = tiny_spec(num_classes=4)

    loc, conf = tiny_net(spec=spec)(torch.from_numpy(tiny_input(spec, batch=2)))

    assert loc.shape == (2, spec.priors.count, 4)
    assert conf.shape == (2, spec.priors.count, 4)


def test_rows_of_the_heads_run_level_row_column_box():
    """A regression head that answers with its own level, row, column and box shows the order."""
    spec = tiny_spec()
    net = tiny_net(spec=spec)
    maps = [
        torch.arange(level.rows * level.cols, dtype=torch.float32).reshape(
            1, 1, level.rows, level.cols
        )
        for level in spec.priors.levels
    ]
    boxes = [level.boxes_per_cell for level in spec.priors.levels]
    head = net.head.regression_head
    for number, count in enumerate(boxes):
        conv = torch.nn.Conv2d(1, 4 * count, 1)
        torch.nn.init.constant_(conv.weight, 1000.0)
        conv.bias.data = torch.arange(4 * count, dtype=torch.float32) + 100_000.0 * number
        head.module_list[number] = conv

    rows = head(maps)[0, :, 0]

    expected = [
        100_000.0 * number + 1000.0 * cell + 4.0 * box
        for number, level in enumerate(spec.priors.levels)
        for cell in range(level.rows * level.cols)
        for box in range(level.boxes_per_cell)
    ]
    assert rows.tolist() == expected


@pytest.mark.parametrize("size", [(96, 96), (65, 130), (33, 47)])
@pytest.mark.parametrize("backbone", list(Backbone))
def test_feature_map_sizes_are_those_that_the_net_makes(backbone, size):
    spec = tiny_spec(backbone=backbone, image_size=size)
    net = tiny_net(spec=spec)

    with torch.no_grad():
        maps = net.backbone(torch.zeros(1, 3, *size))

    assert feature_map_sizes(spec.arch, *size) == tuple(tuple(m.shape[-2:]) for m in maps)


def test_maps_at_the_published_sizes():
    arch = native_spec(Backbone.LARGE, class_names(2)).arch

    at_300 = feature_map_sizes(arch, 300, 300)
    at_320 = feature_map_sizes(arch, 320, 320)

    assert [rows for rows, _ in at_300] == [19, 10, 5, 3, 2, 1]
    assert [rows for rows, _ in at_320] == [20, 10, 5, 3, 2, 1]


def test_priors_of_another_image_size_are_refused_with_both_sizes():
    spec = tiny_spec()
    wrong = dataclasses.replace(spec, priors=tiny_spec(image_size=(128, 128)).priors)

    with pytest.raises(SpecError, match=r"level 0: the feature map is 6 x 6 .* for 8 x 8") as info:
        build_net(wrong)

    assert "level 1" in info.value.message
    assert "--imgsz" in info.value.hint


def test_a_missing_prior_level_is_refused():
    spec = tiny_spec()
    levels = spec.priors.levels[:-1]
    short = PriorSpec(spec.priors.frame_width, spec.priors.frame_height, levels, spec.priors.clip)

    with pytest.raises(SpecError, match=r"6 feature maps .* 5 prior levels"):
        build_net(dataclasses.replace(spec, priors=short))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "darknet"}, "no layout 'darknet'; known are torchvision, qfgaohao"),
        ({"layout": "qfgaohao", "reduced_tail": True}, "has no small backbone with a reduced tail"),
        ({"taps": (Tap(13, TapPlace.OUTPUT),)}, "feature 13 does not exist, the last is 12"),
        ({"taps": (Tap(12, TapPlace.OUTPUT), Tap(9, TapPlace.OUTPUT))}, "do not ascend"),
        ({"taps": (Tap(8, TapPlace.EXPANSION),)}, "feature 8 has no expansion that can be tapped"),
        ({"taps": (Tap(1, TapPlace.EXPANSION),)}, "feature 1 has no expansion"),
        ({"taps": (Tap(9, TapPlace.EXPANSION),)}, "the last tap must be an output"),
        ({"layout": "qfgaohao", "extras": (64,)}, "takes 4 extra levels"),
        ({"extras": (64, 0)}, "at least 1 channel"),
        (
            {"taps": (Tap(12, TapPlace.BEFORE_ACTIVATION),)},
            "feature 12 cannot be tapped before its activation",
        ),
    ],
)
def test_an_arch_that_cannot_be_built_is_refused(changes, message):
    arch = dataclasses.replace(tiny_spec().arch, **changes)

    with pytest.raises(SpecError, match=message):
        feature_map_sizes(arch, 96, 96)


def test_a_fresh_net_starts_as_torchvision_trains_it():
    torch.manual_seed(0)

    net = build_net(native_spec(Backbone.SMALL, class_names(3)))

    head = net.head.classification_head.module_list[0][1]
    assert net.training
    assert head.weight.std().item() == pytest.approx(0.03, rel=0.1)
    assert not head.bias.any()
    stem_bn = net.backbone.features[0][0][1]
    assert (stem_bn.eps, stem_bn.momentum) == (1e-3, 0.03)
