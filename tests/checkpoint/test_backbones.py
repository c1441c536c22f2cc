"""Backbone weights: recognised alone, fed whole or refused, and the originals' numbers come out."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
import zoo
import zoo_recipe
from builders import seeded_state_dict, tiny_net, tiny_spec
from checkpoint_files import INVENTORIES, Payload, inventory, saved, state_dict
from torch.nn import functional

from mbv3ssd_deploy.checkpoint.backbones.families import BACKBONES
from mbv3ssd_deploy.checkpoint.backbones.load import (
    apply_backbone,
    describe_backbone,
    load_backbone,
)
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import QFGAOHAO_TAPS as PLAIN_TAPS
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import TONGYU_TAPS
from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.checkpoint.families.torchvision import ssdlite_arch
from mbv3ssd_deploy.checkpoint.families.xiaolai import CUT_TAPS
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, ClassifierSpec, Tap, TapPlace
from mbv3ssd_deploy.errors import CheckpointError, SpecError, UnsafeCheckpointError
from mbv3ssd_deploy.nets.build import build_classifier, build_net
from mbv3ssd_deploy.nets.plan import name_modules

LARGE, SMALL = Backbone.LARGE, Backbone.SMALL
# one cut inside a block, one between two, as mmdetection's configurations may say
MMDET_TAPS = {
    LARGE: (Tap(13, TapPlace.EXPANSION), Tap(16, TapPlace.OUTPUT)),
    SMALL: (Tap(8, TapPlace.OUTPUT), Tap(12, TapPlace.OUTPUT)),
}


def arch(layout, backbone, taps):
    return ArchSpec(
        layout, backbone, 1.0, reduced_tail=False, taps=taps, extras=(512, 256, 256, 64)
    )


ARCHS = {
    "torchvision large": ssdlite_arch(LARGE, width_mult=1.0, reduced_tail=False),
    "torchvision small": ssdlite_arch(SMALL, width_mult=1.0, reduced_tail=False),
    "torchvision reduced": ssdlite_arch(LARGE, width_mult=1.0, reduced_tail=True),
    "qfgaohao large": arch("qfgaohao", LARGE, PLAIN_TAPS[LARGE]),
    "qfgaohao small": arch("qfgaohao", SMALL, PLAIN_TAPS[SMALL]),
    "tongyu large": arch("tongyu_large", LARGE, TONGYU_TAPS[LARGE]),
    "tongyu small": arch("tongyu_small", SMALL, TONGYU_TAPS[SMALL]),
    "jungin500 small": arch("jungin500", SMALL, PLAIN_TAPS[SMALL]),
    "ujsyehao large": arch("ujsyehao", LARGE, CUT_TAPS),
    "compact large": arch("compact", LARGE, CUT_TAPS),
    "lufficc large": arch("lufficc", LARGE, PLAIN_TAPS[LARGE]),
    "mmdet large": arch("mmdet", LARGE, MMDET_TAPS[LARGE]),
    "mmdet small": arch("mmdet", SMALL, MMDET_TAPS[SMALL]),
    "mmdet_l2norm large": arch("mmdet_l2norm", LARGE, MMDET_TAPS[LARGE]),
    "mmdet_l2norm small": arch("mmdet_l2norm", SMALL, MMDET_TAPS[SMALL]),
    "mmdet_early large": arch("mmdet_early", LARGE, MMDET_TAPS[LARGE]),
    "mmdet_quarter large": arch("mmdet_quarter", LARGE, MMDET_TAPS[LARGE]),
}
OF_TORCHVISION = ("torchvision", "mmdet", "mmdet_l2norm")
"""The layouts whose backbone is torchvision's, number by number."""
# from the originals' code: what each file is, and which detectors have that very backbone
FILES = {
    "init_dli14_large": ("d-li14", {"lufficc large"}),
    "init_dli14_small": ("d-li14", set()),
    "init_jungin500_v1_small": ("jungin500-v1", {"jungin500 small"}),
    "init_jungin500_v2_small": ("jungin500-v2", {"jungin500 small"}),
    "init_jungin500_v2w050_small": ("jungin500-v2", set()),
    "init_leaderj_large": ("leaderj1001", {"tongyu large"}),
    "init_leaderj_small": ("leaderj1001", {"tongyu small"}),
    "init_timm_large": ("timm", {f"{layout} large" for layout in OF_TORCHVISION}),
    "init_timm_small": ("timm", {f"{layout} small" for layout in OF_TORCHVISION}),
    "init_tongyu_cls_large": ("tongyu-classifier", {"tongyu large"}),
    "init_tongyu_cls_small": ("tongyu-classifier", {"tongyu small"}),
    "init_torchvision_cls_large": (
        "torchvision-classifier",
        {f"{layout} large" for layout in OF_TORCHVISION},
    ),
    "init_torchvision_cls_small": (
        "torchvision-classifier",
        {f"{layout} small" for layout in OF_TORCHVISION},
    ),
    "init_xiaolai_act3_large": ("xiaolai-act3", set()),
    "init_xiaolai_act3_small": ("xiaolai-act3", set()),
    "init_xiaolai_old_large": ("xiaolai-old", {"ujsyehao large", "compact large"}),
    "init_xiaolai_old_small": ("xiaolai-old", set()),
    "init_xiaolai_pool_large": ("xiaolai-pooled", {"qfgaohao large"}),
    "init_xiaolai_pool_small": ("xiaolai-pooled", {"qfgaohao small"}),
}
FEEDING = [(folder, name) for folder, (_, fed) in FILES.items() for name in sorted(fed)]


@functools.cache
def recorded_files():
    return zoo.backbones()


def original(folder):
    """The weights that the family's own code was run on, and what came out."""
    about, outputs = recorded_files()
    facts = about[folder]
    weights = zoo_recipe.state_dict(facts["keys"], **facts["weights"])
    image = torch.from_numpy(zoo_recipe.synthetic_input(**facts["synthetic_input"]))[:1]
    return weights, image, outputs[folder]


def file_of(folder, path):
    weights, _, _ = original(folder)
    return saved(path / f"{folder}.pth", weights)


def backbone_of(net):
    return {k: t for k, t in net.state_dict().items() if k.startswith("backbone.features.")}


def test_every_recorded_file_is_in_the_table():
    about, _ = zoo.backbones()

    assert set(about) == set(FILES)


@zoo.needs_zoo
def test_the_committed_form_is_the_recorded_one():
    about, outputs = zoo.backbones()

    for folder in ("init_timm_large", "init_jungin500_v1_small"):
        weights = zoo.state_dict(folder)
        ours = zoo_recipe.state_dict(about[folder]["keys"], **about[folder]["weights"])
        assert all(torch.equal(ours[key], weights[key]) for key in weights)
    assert np.array_equal(outputs["init_timm_large"], zoo.oracle("init_timm_large")["syn_logits"])


@pytest.mark.parametrize("folder", FILES)
def test_a_file_is_of_one_family_and_no_detector(folder):
    about, _ = zoo.backbones()
    shapes = {key: tuple(shape) for key, shape in about[folder]["keys"].items()}

    assert [f.name for f in BACKBONES if f.signature.fits(shapes)] == [FILES[folder][0]]
    assert not [f.name for f in FAMILIES if not f.carries_spec and f.signature.fits(shapes)]


@pytest.mark.parametrize("name", INVENTORIES)
def test_no_detector_is_taken_for_a_backbone(name):
    assert not [f.name for f in BACKBONES if f.signature.fits(inventory(name))]


def hollow_file(folder, path):
    """A file of the right keys and shapes, whose every tensor is one stored zero."""
    about, _ = recorded_files()
    shapes = about[folder]["keys"].items()
    return saved(path / "hollow.pth", {k: torch.zeros(1).expand(s) if s else 0 for k, s in shapes})


@pytest.mark.parametrize("folder", FILES)
def test_every_other_detector_is_refused(tmp_path, folder):
    path = hollow_file(folder, tmp_path)
    family, fed = FILES[folder]

    # the other size is refused at once, whatever its layout
    size = folder.rsplit("_", 1)[-1]
    others = [name for name in ARCHS if size in name or name == "torchvision reduced"]
    for name in [*others, "torchvision small", "qfgaohao large"]:
        if name in fed:
            continue
        with pytest.raises(CheckpointError, match=f"the backbone of {family} does not f") as info:
            load_backbone(path, ARCHS[name])
        assert info.value.where == str(path)
        assert info.value.hint


@pytest.mark.parametrize(("folder", "name"), FEEDING)
def test_a_detector_is_fed_whole(tmp_path, folder, name):
    weights, _, _ = original(folder)

    loaded = load_backbone(file_of(folder, tmp_path), ARCHS[name])

    wanted = backbone_of(build_classifier(ARCHS[name], 1))
    assert loaded.family == FILES[folder][0]
    assert {k: t.shape for k, t in loaded.tensors.items()} == {
        k: t.shape for k, t in wanted.items()
    }
    assert {*loaded.report.renamed, *loaded.dropped} == set(weights)
    assert loaded.report.is_clean
    assert all(loaded.dropped.values())


@pytest.mark.parametrize(
    ("folder", "target", "reason", "feeds"),
    [
        ("init_xiaolai_act3_small", "qfgaohao small", "activate after the addition", "pooled"),
        ("init_xiaolai_old_large", "qfgaohao large", "the gate pools (no in the file, yes", "pool"),
        ("init_dli14_large", "torchvision large", "where the gate is", "torchvision-class"),
        ("init_dli14_small", "torchvision small", "before the activation", "timm"),
        ("init_timm_large", "torchvision reduced", "the tail (full in the file, red", "detector"),
        ("init_timm_large", "torchvision small", "MobileNetV3-Large, the detector's is Small", ""),
        ("init_torchvision_cls_large", "qfgaohao large", "the table of blocks", "xiaolai-pooled"),
        ("init_jungin500_v2w050_small", "jungin500 small", "87 shapes are wrong", "width"),
    ],
)
def test_a_refusal_gives_the_reason_and_names_what_feeds(tmp_path, folder, target, reason, feeds):
    with pytest.raises(CheckpointError) as info:
        load_backbone(hollow_file(folder, tmp_path), ARCHS[target])

    assert reason in info.value.message
    assert feeds in info.value.hint


def xiaolai_logits(weights, pooled):
    hidden = functional.linear(pooled, weights["linear3.weight"], weights["linear3.bias"])
    factors = [weights[f"bn3.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
    hidden = functional.hardswish(functional.batch_norm(hidden, *factors, eps=1e-5))
    return functional.linear(hidden, weights["linear4.weight"], weights["linear4.bias"])


def jungin500_logits(weights, pooled):
    hidden = functional.linear(
        pooled, weights["classifiers.2.weight"], weights["classifiers.2.bias"]
    )
    return functional.linear(hidden, weights["classifiers.4.weight"], weights["classifiers.4.bias"])


def leaderj_logits(weights, hidden):
    """From the wide convolution of the pooled map on."""
    flat = weights["out_conv2.3.weight"].flatten(1)
    return functional.linear(functional.hardswish(hidden), flat, weights["out_conv2.3.bias"])


@pytest.mark.parametrize(("folder", "name"), FEEDING)
def test_the_fed_network_computes_the_originals_numbers(tmp_path, folder, name):
    weights, image, recorded = original(folder)
    loaded = load_backbone(saved(tmp_path / "w.pth", weights), ARCHS[name], num_classes=1000)
    net = build_classifier(ARCHS[name], 1000).eval()
    apply_backbone(net, loaded)
    before_wide = []
    wide = name_modules(ARCHS[name]).wide
    if wide is not None:
        net.get_submodule(wide).register_forward_pre_hook(lambda _, x: before_wide.append(x[0]))

    with torch.no_grad():
        if loaded.has_classifier:
            found = net(image)
        elif wide is not None:
            net.backbone(image)
            hidden = net.get_submodule(wide)(net.pool(before_wide[0]))
            found = leaderj_logits(weights, hidden.flatten(1))
        else:
            features = net.backbone(image)
            pooled = net.pool(features).flatten(1)
            if "linear4.weight" in weights:
                found = xiaolai_logits(weights, pooled)
            elif "classifiers.2.weight" in weights:
                found = jungin500_logits(weights, pooled)
            else:
                found = features[..., 0]

    np.testing.assert_allclose(found, recorded, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("folder", ["init_torchvision_cls_small", "init_timm_small"])
def test_the_classifier_comes_along_only_whole_and_for_as_many_classes(tmp_path, folder):
    path, target = file_of(folder, tmp_path), ARCHS["torchvision small"]

    whole = load_backbone(path, target, num_classes=1000)
    others = load_backbone(path, target, num_classes=20)
    detector = load_backbone(path, target)

    assert whole.has_classifier
    assert set(whole.tensors) == set(build_classifier(target, 1000).state_dict())
    assert set(whole.dropped) == set()
    assert not others.has_classifier
    assert not detector.has_classifier
    assert len(others.dropped) == len(detector.dropped) == 4
    assert {*others.dropped.values()} == {
        "a classifier for other classes: the new one starts fresh"
    }
    assert {*detector.dropped.values()} == {"the classifier, which no detector runs"}


def test_tongyus_trained_backbone_is_taken_and_not_the_one_its_ssd_reads(tmp_path):
    weights, _, _ = original("init_tongyu_cls_small")

    loaded = load_backbone(saved(tmp_path / "w.pth", weights), ARCHS["tongyu small"])

    stem = f"{name_modules(ARCHS['tongyu small']).stem}.0.weight"
    assert torch.equal(loaded.tensors[stem], weights["init_conv.0.weight"])
    assert loaded.dropped["features.0.weight"].startswith("a second backbone")


def test_timms_batch_norms_keep_their_numbers_whatever_the_variance_is(tmp_path):
    """Also where it is far below either eps, and could not be moved by their difference."""
    weights, image, _ = original("init_timm_small")
    target = ARCHS["torchvision small"]
    for key in [k for k in weights if k.endswith("running_var")]:
        weights[key] = weights[key] * 1e-6
        weights[key.replace("running_var", "weight")] *= 1e-3  # keeps the scale of what comes out
    names = name_modules(target)
    net = build_classifier(target, 1000).eval()

    loaded = load_backbone(saved(tmp_path / "w.pth", weights), target)
    apply_backbone(net, loaded)

    with torch.no_grad():
        after = net.get_submodule(names.stem)[1](net.get_submodule(names.stem)[0](image))
        raw = functional.conv2d(image, weights["conv_stem.weight"], stride=2, padding=1)
        factors = ("running_mean", "running_var", "weight", "bias")
        theirs = functional.batch_norm(raw, *(weights[f"bn1.{f}"] for f in factors), eps=1e-5)
    torch.testing.assert_close(after, theirs, atol=1e-5, rtol=1e-5)
    stats = f"{names.stem}.1.running_var"
    assert torch.equal(loaded.tensors[stats], weights["bn1.running_var"])
    assert any("factors were rescaled" in notice for notice in loaded.notices)


# families whose keys tell the arch; the statistics of seeded weights are shaoshengsong's
@pytest.mark.parametrize("name", INVENTORIES)
def test_any_detector_feeds_a_detector_of_its_own_kind(tmp_path, name):
    owner = name.replace("_coco", "_reduced").replace("_released", "_large").replace("_", " ")
    weights = state_dict(name)

    loaded = load_backbone(saved(tmp_path / "w.pth", weights), ARCHS[owner])

    assert set(loaded.tensors) == set(backbone_of(build_classifier(ARCHS[owner], 1)))
    assert {*loaded.report.renamed, *loaded.dropped} == set(weights)
    for key, new in loaded.report.renamed.items():
        assert torch.equal(loaded.tensors[new].flatten(), weights[key].flatten())


def test_a_detector_whose_family_nothing_decides_feeds_the_backbone_that_both_have(tmp_path):
    weights = state_dict("tongyu_small") | {"base_net.1.running_var": torch.zeros(16)}

    loaded = load_backbone(saved(tmp_path / "w.pth", weights), ARCHS["tongyu small"])

    assert loaded.family == "tongyu"
    assert loaded.report.is_clean


def test_a_detector_feeds_another_with_the_same_backbone_and_other_taps(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("compact_large"))
    target = dataclasses.replace(ARCHS["ujsyehao large"], taps=PLAIN_TAPS[LARGE])

    loaded = load_backbone(path, target)

    assert set(loaded.tensors) == set(backbone_of(build_classifier(target, 1)))
    names = name_modules(target)
    weights = state_dict("compact_large")
    assert torch.equal(loaded.tensors[f"{names.last}.weight"], weights["base.conv2.weight"])
    expand = f"{names.blocks[13].expand}.0.weight"
    assert torch.equal(loaded.tensors[expand], weights["base.bneck.13.conv1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_train_backbone_writes_feeds_the_detector_exactly(tmp_path, suffix):
    spec = tiny_spec()
    net = build_classifier(spec.arch, 4)
    names = ("cat", "dog", "cow", "owl")
    path = tmp_path / f"backbone{suffix}"
    write_native(path, net, ClassifierSpec("tiny", spec.arch, spec.input, names))
    detector = build_net(spec)
    heads = {k: t.clone() for k, t in detector.state_dict().items() if k.startswith("head.")}

    loaded = load_backbone(path, spec)
    applied = apply_backbone(detector, loaded)

    assert loaded.family == "native-classifier"
    state = detector.state_dict()
    assert all(torch.equal(state[k], t) for k, t in backbone_of(net).items())
    assert set(applied.filled) == set(backbone_of(net))
    assert set(applied.kept) == set(state) - set(applied.filled)
    assert all(torch.equal(state[k], t) for k, t in heads.items())
    assert load_backbone(path, spec.arch, num_classes=4).has_classifier


def test_a_native_detector_feeds_another_and_a_classifier(tmp_path):
    spec = tiny_spec()
    net = tiny_net(spec=spec)
    path = tmp_path / "detector.pth"
    write_native(path, net, spec)
    other = build_net(tiny_spec(num_classes=9))

    loaded = load_backbone(path, tiny_spec(num_classes=9))
    apply_backbone(other, loaded)
    classifier = build_classifier(spec.arch, 5)
    apply_backbone(classifier, load_backbone(path, spec.arch, num_classes=5))

    for fed in (other, classifier):
        state = fed.state_dict()
        assert all(torch.equal(state[k], t) for k, t in backbone_of(net).items())
    assert any(why.startswith("a head") for why in loaded.dropped.values())


def test_the_bare_base_nets_of_pytorch_ssd_load_too(tmp_path):
    sources = {
        "tongyu small": ("init_tongyu_cls_small", "tongyu-base"),
        "jungin500 small": ("init_jungin500_v2_small", "jungin500-base"),
    }
    for name, (folder, family) in sources.items():
        weights, _, _ = original(folder)
        bare = {
            key.removeprefix("features."): tensor
            for key, tensor in weights.items()
            if key.startswith("features.")
        }
        loaded = load_backbone(saved(tmp_path / "w.pth", bare), ARCHS[name])
        assert loaded.family == family
        assert loaded.dropped == {}


def test_qfgaohaos_base_net_loads_bare(tmp_path):
    weights = state_dict("qfgaohao_small")
    start = "base_net."
    bare = {k.removeprefix(start): t for k, t in weights.items() if k.startswith(start)}

    loaded = load_backbone(saved(tmp_path / "w.pth", bare), ARCHS["qfgaohao small"])

    assert loaded.family == "qfgaohao-base"
    whole = load_backbone(saved(tmp_path / "d.pth", weights), ARCHS["qfgaohao small"])
    assert all(torch.equal(whole.tensors[k], t) for k, t in loaded.tensors.items())


@zoo.needs_zoo
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "folder", ["init_xiaolai_pool_small", "init_leaderj_small", "init_jungin500_v2_small"]
)
def test_files_as_their_authors_write_them_load(tmp_path, monkeypatch, folder, legacy):
    monkeypatch.syspath_prepend(str(zoo.ZOO))
    wrap = zoo._module("wrap")
    path = saved(tmp_path / "w.pth.tar", wrap.build(str(zoo.ZOO / folder)), legacy=legacy)
    target = ARCHS[next(iter(FILES[folder][1]))]

    loaded = load_backbone(path, target)

    bare = load_backbone(file_of(folder, tmp_path), target)
    assert set(loaded.tensors) == set(bare.tensors)
    assert all(torch.equal(loaded.tensors[k], t) for k, t in bare.tensors.items())


def test_half_a_backbone_is_refused_with_what_is_missing(tmp_path):
    weights, _, _ = original("init_torchvision_cls_small")
    half = dict(list(weights.items())[: len(weights) // 2])

    with pytest.raises(CheckpointError, match=r"tensors are missing: .*") as info:
        load_backbone(saved(tmp_path / "w.pth", half), ARCHS["torchvision small"])

    assert "half a file" in info.value.hint


def test_a_key_that_nobody_knows_is_refused(tmp_path):
    weights, _, _ = original("init_torchvision_cls_small")
    weights["features.3.block.9.odd"] = torch.zeros(2)

    with pytest.raises(CheckpointError, match=r"1 key is unknown: features\.3\.block\.9\.odd"):
        load_backbone(saved(tmp_path / "w.pth", weights), ARCHS["torchvision small"])


def test_a_backbone_with_nan_is_refused(tmp_path):
    weights, _, _ = original("init_torchvision_cls_small")
    weights["features.0.0.weight"][0, 0, 0, 0] = float("nan")

    with pytest.raises(CheckpointError, match="not finite"):
        load_backbone(saved(tmp_path / "w.pth", weights), ARCHS["torchvision small"])


def test_another_network_is_refused_with_what_is_known(tmp_path):
    weights = seeded_state_dict({"conv1.weight": (4, 3, 3, 3), "layer1.0.conv1.weight": (4, 4)})

    with pytest.raises(CheckpointError, match="no backbone is known in this file") as info:
        load_backbone(saved(tmp_path / "w.pth", weights), tiny_spec())

    assert "torchvision-classifier, timm" in info.value.hint


def test_nothing_in_a_file_is_run(tmp_path):
    marker = tmp_path / "ran"
    path = saved(tmp_path / "w.pth", {"state_dict": Payload(marker)})

    with pytest.raises(UnsafeCheckpointError):
        load_backbone(path, tiny_spec())

    assert not marker.exists()


def test_a_classifier_with_a_broken_spec_says_so(tmp_path):
    spec = tiny_spec()
    entries = {
        "format": "mbv3ssd-deploy/native-classifier",
        "schema": 1,
        "spec": {"name": "no arch"},
        "state_dict": build_classifier(spec.arch, 2).state_dict(),
    }
    path = saved(tmp_path / "w.pth", entries)

    with pytest.raises(SpecError) as info:
        load_backbone(path, spec)

    assert info.value.where.startswith(str(path))


def test_weights_do_not_go_into_another_network(tmp_path):
    path = tmp_path / "detector.pth"
    write_native(path, tiny_net(), tiny_spec())
    loaded = load_backbone(path, tiny_spec())
    other = build_net(tiny_spec(width_mult=0.5))
    before = {k: t.clone() for k, t in other.state_dict().items()}

    with pytest.raises(CheckpointError, match="not the one that the weights were loaded for"):
        apply_backbone(other, loaded)

    assert all(torch.equal(before[k], t) for k, t in other.state_dict().items())


def test_another_width_is_refused(tmp_path):
    path = tmp_path / "detector.pth"
    write_native(path, tiny_net(), tiny_spec())

    with pytest.raises(CheckpointError, match="shapes are wrong") as info:
        load_backbone(path, tiny_spec(width_mult=0.5))

    assert "width" in info.value.hint


@pytest.mark.parametrize("folder", FILES)
def test_a_file_is_described_with_what_it_feeds(tmp_path, folder):
    family, fed = FILES[folder]

    found = describe_backbone(hollow_file(folder, tmp_path))

    assert (found.family, found.network) == (family, folder.rsplit("_", 1)[-1])
    known = {target.layout for target in ARCHS.values()}
    assert set(found.feeds) & known == {ARCHS[name].layout for name in fed}
    assert bool(found.why_not) is not bool(fed)
    assert found.width == (1.0 if fed else None)


def test_a_detector_is_not_described_as_a_backbone(tmp_path):
    path = saved(tmp_path / "w.pth", state_dict("qfgaohao_small"))

    assert describe_backbone(path) is None


def test_our_own_classifier_is_described_with_its_classes(tmp_path):
    spec = tiny_spec()
    path = tmp_path / "backbone.pth"
    names = ("cat", "dog")
    classifier = ClassifierSpec("tiny", spec.arch, spec.input, names)
    write_native(path, build_classifier(spec.arch, 2), classifier)

    found = describe_backbone(path)

    assert found.family == "native-classifier"
    assert found.class_names == names
    assert "torchvision" in found.feeds
    assert found.width == 0.25
    with pytest.raises(CheckpointError, match="a classifier that train-backbone made") as info:
        load_detector(path)
    assert "train --backbone" in info.value.hint
