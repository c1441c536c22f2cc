import dataclasses

import pytest
import torch
from builders import tiny_net, tiny_spec

from mbv3ssd_deploy.checkpoint.families.native import native_spec
from mbv3ssd_deploy.core.spec import Backbone, Tap, TapPlace
from mbv3ssd_deploy.nets.blocks import ConvBnAct, ExtraLevel, SqueezeExcite
from mbv3ssd_deploy.nets.names import name_modules
from mbv3ssd_deploy.nets.ssd import SsdNet


def net_of(arch):
    levels = len(arch.taps) + len(arch.extras)
    return SsdNet(arch, [6] * levels, 2)


ARCHS = {
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
    if names.last is not None:
        wanted[names.last] = ConvBnAct
    for block in names.blocks:
        parts = (block.expand, block.depthwise, block.project, block.shortcut)
        wanted |= {name: ConvBnAct for name in parts if name is not None}
        wanted |= {block.squeeze: SqueezeExcite} if block.squeeze else {}

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
