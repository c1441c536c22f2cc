"""The classifier: its backbone is the detector's, name by name and number by number."""

import dataclasses

import pytest
import torch
from builders import fill_weights, tiny_net, tiny_spec
from torch import nn

from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, Tap, TapPlace
from mbv3ssd_deploy.nets.build import build_classifier, build_net, hidden_width

TONGYU = ArchSpec(
    layout="tongyu_large",
    backbone=Backbone.LARGE,
    width_mult=0.25,
    reduced_tail=False,
    taps=(Tap(14, TapPlace.EXPANSION), Tap(17, TapPlace.BEFORE_ACTIVATION)),
    extras=(512, 256, 256, 64),
)


def backbone_shapes(net):
    state = net.state_dict()
    return {k: tuple(t.shape) for k, t in state.items() if k.startswith("backbone.features.")}


@pytest.mark.parametrize("backbone", list(Backbone))
def test_the_backbone_has_the_detectors_names_and_shapes(backbone):
    spec = tiny_spec(backbone=backbone, width_mult=1.0)

    net = build_classifier(spec.arch, 5)

    assert backbone_shapes(net) == backbone_shapes(build_net(spec))
    others = set(net.state_dict()) - set(backbone_shapes(net))
    assert others == {f"classifier.{i}.{leaf}" for i in (0, 3) for leaf in ("weight", "bias")}


def test_the_backbone_computes_the_detectors_last_map():
    spec = tiny_spec()
    detector = tiny_net(spec=spec)
    net = build_classifier(spec.arch, 5).eval()
    net.load_state_dict(detector.state_dict(), strict=False)
    image = torch.rand(1, 3, 96, 96)

    with torch.no_grad():
        assert torch.equal(net.backbone(image), detector.backbone(image)[1])


def test_what_the_last_tap_leaves_runs_too():
    net = build_classifier(TONGYU, 5)
    fill_weights(net)

    out = net.eval().backbone(torch.rand(1, 3, 64, 64))

    assert out.shape[1] == 1280
    assert out.min() >= -0.375 - 1e-6  # the lowest that h-swish gives


@pytest.mark.parametrize(
    ("changes", "width"),
    [({}, 1024), ({"backbone": Backbone.LARGE}, 1280), ({"reduced_tail": True}, 512)],
)
def test_the_hidden_layer_is_as_wide_as_torchvisions(changes, width):
    arch = dataclasses.replace(tiny_spec(width_mult=1.0).arch, **changes)

    assert hidden_width(arch) == width


def test_a_fresh_classifier_gives_logits_for_each_class_and_learns_all_it_has():
    net = build_classifier(tiny_spec().arch, 7, dropout=0.5)

    logits = net(torch.rand(2, 3, 64, 64))
    logits.square().sum().backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None for p in net.parameters())
    assert next(m.p for m in net.modules() if isinstance(m, nn.Dropout)) == 0.5
    assert 0 < net.classifier[0].weight.std() < 0.02


@pytest.mark.parametrize("bad", [{"class_count": 0}, {"class_count": 2, "dropout": 1.0}])
def test_misuse_is_a_value_error(bad):
    with pytest.raises(ValueError, match="classes"):
        build_classifier(tiny_spec().arch, **bad)
