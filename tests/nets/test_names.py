import dataclasses

import pytest
import torch
from builders import tiny_net, tiny_spec
from torch.nn import BatchNorm2d, Conv2d

from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, Tap, TapPlace
from mbv3ssd_deploy.nets.blocks import ChannelNorm, ConvBnAct, ExtraLevel, SqueezeExcite
from mbv3ssd_deploy.nets.build import SsdNet
from mbv3ssd_deploy.nets.plan import name_modules


def net_of(arch):
    levels = len(arch.taps) + len(arch.extras)
    return SsdNet(arch, [6] * levels, 2)


def large(layout, *taps):
    return ArchSpec(
        layout=layout,
        backbone=Backbone.LARGE,
        width_mult=1.0,
        reduced_tail=False,
        taps=taps,
        extras=(512, 256, 256, 64),
    )


OUTPUT_16 = Tap(16, TapPlace.OUTPUT)
ARCHS = {
    "before the activation": large(
        "tongyu_large", Tap(14, TapPlace.EXPANSION), Tap(17, TapPlace.BEFORE_ACTIVATION)
    ),
    "gate after the last": dataclasses.replace(
        large("tongyu_small", Tap(9, TapPlace.EXPANSION), Tap(13, TapPlace.OUTPUT)),
        backbone=Backbone.SMALL,
    ),
    "bare shortcuts": dataclasses.replace(
        large("jungin500", Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
        backbone=Backbone.SMALL,
    ),
    "gates inside": large("lufficc", Tap(12, TapPlace.OUTPUT), OUTPUT_16),
    "first map normalised": large("compact", Tap(14, TapPlace.EXPANSION), OUTPUT_16),
    "expansion tapped": native_spec(Backbone.LARGE, ("background", "a")).arch,
    "small": tiny_spec().arch,
    "qfgaohao": dataclasses.replace(
        tiny_spec(width_mult=1.0).arch,
        layout="qfgaohao",
        taps=(Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
    ),
    "no last convolution": dataclasses.replace(
        tiny_spec().arch, taps=(Tap(0, TapPlace.OUTPUT), Tap(9, TapPlace.OUTPUT))
    ),
}


@pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)
def test_every_name_is_a_module_of_its_kind_and_none_is_left_over(arch):
    net = net_of(arch)
    names = name_modules(arch)
    wanted = {names.stem: ConvBnAct} | dict.fromkeys(names.extras, ExtraLevel)
    wanted |= {
        name: kind
        for name, kind in (
            (names.last, Conv2d),
            (names.last_norm, BatchNorm2d),
            (names.last_squeeze, SqueezeExcite),
            (names.wide, Conv2d),
            (names.first_norm, ChannelNorm),
        )
        if name is not None
    }
    for block in names.blocks:
        parts = (block.expand, block.depthwise, block.project)
        wanted |= {name: ConvBnAct for name in parts if name is not None}
        wanted |= {block.squeeze: SqueezeExcite} if block.squeeze else {}
        bare = arch.layout == "jungin500"
        wanted |= {block.shortcut: Conv2d if bare else ConvBnAct} if block.shortcut else {}

    modules = dict(net.named_modules())
    assert {name: type(modules[name]) for name in wanted} == wanted
    covered = (*wanted, *names.classification, *names.regression)
    assert [
        key for key in net.state_dict() if not key.startswith(tuple(f"{c}." for c in covered))
    ] == []


def test_the_depthwise_convolutions_are_the_ones_named_so():
    net, names = tiny_net(), name_modules(tiny_spec().arch)

    for block in names.blocks:
        convolution = net.get_submodule(block.depthwise)[0]
        assert convolution.groups == convolution.in_channels > 1
        assert net.get_submodule(block.project)[0].groups == 1


def test_a_gate_scales_each_channel_by_one_number():
    gate = next(m for m in tiny_net().modules() if isinstance(m, SqueezeExcite))
    x = torch.rand(1, gate.fc1.in_channels, 4, 5) + 0.5

    with torch.no_grad():
        factors = gate(x) / x

    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors))
    assert factors.min() >= 0
    assert factors.max() <= 1
