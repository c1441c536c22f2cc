import pytest
from builders import class_names

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, Tap, TapPlace
from mbv3ssd_deploy.nets.plan import Part, Shortcut, divisible_width, plan_net


@pytest.mark.parametrize(
    ("channels", "width"),
    [
        (16, 16),
        (4, 8),
        (12, 16),
        (11.9, 16),
        (18, 24),
        (20, 24),
        (672 / 4, 168),
        (22, 24),
        (120 / 4, 32),
        (83, 80),
    ],
)
def test_widths_round_to_eight_and_never_lose_a_tenth(channels, width):
    assert divisible_width(channels) == width


@pytest.mark.parametrize(
    ("backbone", "reduced", "maps"),
    [
        (Backbone.LARGE, True, (672, 480, 512, 256, 256, 128)),
        (Backbone.LARGE, False, (672, 960, 512, 256, 256, 128)),
        (Backbone.SMALL, False, (288, 576, 512, 256, 256, 128)),
        (Backbone.SMALL, True, (288, 288, 512, 256, 256, 128)),
    ],
)
def test_map_channels_of_torchvisions_layout(backbone, reduced, maps):
    arch = native_spec(backbone, class_names(2), reduced_tail=reduced).arch

    assert plan_net(arch).map_channels == maps


def test_half_the_width_halves_extras_and_rounds_the_backbone():
    plan = plan_net(native_spec(Backbone.LARGE, class_names(2), width_mult=0.5).arch)

    assert plan.map_channels == (336, 480, 256, 128, 128, 64)
    assert plan.stem_channels == 8
    # 16 -> 8 channels in and out, and no expansion: it would not widen
    assert Part.EXPAND not in plan.blocks[0].parts


def test_the_qfgaohao_layout_adds_a_shortcut_to_every_block_of_stride_one():
    taps = (Tap(12, TapPlace.OUTPUT), Tap(16, TapPlace.OUTPUT))
    arch = ArchSpec("qfgaohao", Backbone.LARGE, 1.0, False, taps, (512, 256, 256, 64))  # noqa: FBT003

    plan = plan_net(arch)

    projected = [i for i, b in enumerate(plan.blocks) if b.shortcut is Shortcut.PROJECTION]
    none = [i for i, b in enumerate(plan.blocks) if b.shortcut is Shortcut.NONE]
    assert projected == [10, 12]
    assert none == [1, 3, 6, 13]
    assert [b.squeeze_hidden for b in plan.blocks if b.squeeze_hidden] == [10] * 3 + [28] * 2 + [
        40
    ] * 3
    assert plan.map_channels == (112, 960, 512, 256, 256, 64)
    assert [e.hidden for e in plan.extras] == [256, 128, 128, 64]
