"""What backbone lies in a file: of a known family, of our own classifier, or of a detector."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from mbv3ssd_deploy.checkpoint.backbones.families import BACKBONES, CLASSIFIER, BackboneFamily
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, KeyRule, listed, move_leaves
from mbv3ssd_deploy.checkpoint.load import LoadOptions, load_detector
from mbv3ssd_deploy.checkpoint.recognise import fitting_families, recognise
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone, ClassifierSpec
from mbv3ssd_deploy.errors import CheckpointError
from mbv3ssd_deploy.io.records import record_from_json
from mbv3ssd_deploy.nets.layouts import LAYOUTS, Layout, layout_of
from mbv3ssd_deploy.nets.plan import BlockNames, name_modules

OWN_CLASSIFIER = "native-classifier"
_REST_OF_A_DETECTOR = (
    KeyRule(r"head\..+", None, "a head of the file's detector, no part of its backbone"),
    KeyRule(
        r"backbone\.(extra|first_norm)\..+",
        None,
        "a level behind the backbone: it is trained again with the heads",
    ),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file as a source of backbone weights.

    Attributes:
        family: the name of its family.
        title: for people.
        evidence: what decided.
        network: what its backbone is.
        bn_eps: of its BatchNorms.
        tensors: of the file, dense layers in their own shape.
        keymap: from the file's keys to those of a detector of an arch.
        notes: what a user should know.
        file_keys: what the file calls those of `tensors` that have our names already.
        dropped: keys of the file that are not among `tensors`, and why.
        arch: of a native classifier, whose file describes it.
    """

    family: str
    title: str
    evidence: tuple[str, ...]
    network: Network
    bn_eps: float
    tensors: Mapping[str, torch.Tensor]
    keymap: Callable[[ArchSpec], KeyMap]
    notes: tuple[str, ...] = ()
    file_keys: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    arch: ArchSpec | None = None


def find_source(contents: RawCheckpoint) -> Source:
    """Return the backbone in a file.

    Raises:
        CheckpointError: there is none that this version knows; SpecError: its spec is broken.
    """
    if contents.classifier_json is not None:
        return _own_classifier(contents)
    family = find_backbone(contents)
    return _classifier(contents, family) if family is not None else _detector(contents)


def find_backbone(contents: RawCheckpoint) -> BackboneFamily | None:
    """Return the family whose backbone weights a file holds; None for any other file."""
    if contents.spec_json is not None or contents.classifier_json is not None:
        return None
    shapes = contents.shapes
    return next((family for family in BACKBONES if family.signature.fits(shapes)), None)


def backbone_in(contents: RawCheckpoint, family: BackboneFamily) -> Backbone:
    """Return whether a file of `family` holds the Large or the Small network."""
    return Backbone.LARGE if family.large_key in contents.tensors else Backbone.SMALL


def classifier_spec_in(contents: RawCheckpoint) -> ClassifierSpec:
    """Return the spec that a native classifier carries.

    Raises:
        SpecError: with every key that is missing, unknown or of the wrong type.
    """
    where = "the classifier's spec in the file"
    return record_from_json(ClassifierSpec, contents.classifier_json, where=where)


def _classifier(contents: RawCheckpoint, family: BackboneFamily) -> Source:
    backbone = backbone_in(contents, family)
    return Source(
        family=family.name,
        title=family.title,
        evidence=(*contents.wrapping, *_evidence(contents, family)),
        network=network_of_family(family, backbone),
        bn_eps=family.bn_eps,
        tensors={
            key: tensor.flatten(1) if key in family.dense and tensor.dim() > 1 else tensor
            for key, tensor in contents.tensors.items()
        },
        keymap=lambda arch: KeyMap(tuple(family.key_rules(arch, name_modules(arch)))),
        notes=(*contents.notices, *family.notes),
    )


def _evidence(contents: RawCheckpoint, family: BackboneFamily) -> tuple[str, ...]:
    """Return the evidence, in sentences, that a file is of `family`, and which network it is."""
    keys = (*family.signature.present, *(key for key, _ in family.signature.ranks))
    backbone = backbone_in(contents, family)
    found = f"has {listed(keys)}: {family.title}"
    if family.large_key is None:
        return (found,)
    exists = "exists" if backbone is Backbone.LARGE else "does not exist"
    return (found, f"{family.large_key} {exists}: MobileNetV3-{backbone.capitalize()}")


def _own_classifier(contents: RawCheckpoint) -> Source:
    spec = classifier_spec_in(contents)
    rules = (KeyRule(rf"{CLASSIFIER}\..+", r"\g<0>"),)
    return Source(
        family=OWN_CLASSIFIER,
        title="this project's classifier, made by train-backbone",
        evidence=(*contents.wrapping, "the file carries a classifier's spec: native-classifier"),
        network=network_of(spec.arch),
        bn_eps=layout_of(spec.arch).bn_eps,
        tensors=contents.tensors,
        keymap=lambda arch: KeyMap((*_moved_rules(spec.arch, arch), *rules)),
        notes=contents.notices,
        arch=spec.arch,
    )


def _detector(contents: RawCheckpoint) -> Source:
    loaded = load_detector(contents.path, LoadOptions(family=_detector_family(contents)))
    arch = loaded.spec.arch
    return Source(
        family=loaded.checkpoint.family,
        title=f"a detector of the family {loaded.checkpoint.family}",
        evidence=loaded.checkpoint.evidence,
        network=network_of(arch),
        bn_eps=layout_of(arch).bn_eps,
        tensors=loaded.net.state_dict(),
        keymap=lambda target: KeyMap((*_moved_rules(arch, target), *_REST_OF_A_DETECTOR)),
        notes=contents.notices,
        file_keys={new: key for key, new in loaded.report.renamed.items()},
        dropped=loaded.report.dropped,
    )


def _detector_family(contents: RawCheckpoint) -> str | None:
    """Return the family to read a detector as; None leaves it to the keys.

    Families of one signature differ in what they feed their network and not in the network: where
    nothing decides between them, the backbone is the same in each.

    Raises:
        CheckpointError: it is of no family.
    """
    try:
        recognise(contents)
    except CheckpointError as error:
        fitting = fitting_families(contents)
        if fitting and len({family.signature for family in fitting}) == 1:
            return fitting[0].name
        known = ", ".join(family.name for family in BACKBONES)
        raise CheckpointError(
            f"no backbone is known in this file: {error.message}",
            hint="backbones are read from detectors, from train-backbone's results, and from "
            f"{known}",
        ) from error
    return None


def _moved_rules(source: ArchSpec, target: ArchSpec) -> list[KeyRule]:
    """Return the rules from the names of one arch to those of another that is cut elsewhere."""
    ours, theirs = name_modules(source), name_modules(target)
    pairs = [(ours.stem, theirs.stem)]
    for before, after in zip(ours.blocks, theirs.blocks, strict=False):
        pairs += _moved_parts(before, after)
    ends = ((ours.last_squeeze, theirs.last_squeeze), (ours.wide, theirs.wide))
    pairs += [(before, after) for before, after in ends if before and after]
    leaves = [
        (before, after)
        for before, after in ((ours.last, theirs.last), (ours.last_norm, theirs.last_norm))
        if before and after
    ]
    return [
        *(move_leaves(before, after) for before, after in leaves),
        *(KeyRule(rf"{re.escape(before)}\.(.+)", rf"{after}.\1") for before, after in pairs),
    ]


def _moved_parts(before: BlockNames, after: BlockNames) -> list[tuple[str, str]]:
    # the gate first: it may be inside the depthwise part
    pairs = (
        (before.squeeze, after.squeeze),
        (before.expand, after.expand),
        (before.depthwise, after.depthwise),
        (before.project, after.project),
        (before.shortcut, after.shortcut),
    )
    return [(old, new) for old, new in pairs if old and new]


@dataclass(frozen=True, slots=True)
class Network:
    """A backbone without its weights: a layout, Large or Small, and which tail.

    `layout` is None for one that no detector has; `why_not` then says what it does otherwise.
    """

    layout: Layout | None
    backbone: Backbone
    reduced_tail: bool = False
    why_not: str = ""


FACTS = (
    ("where the gate is", "gate_place"),
    ("how wide the gate is", "gate_hidden"),
    ("whether the gate has BatchNorms", "gate_norm"),
    ("whether the gate pools", "gate_pools"),
    ("whether each block expands", "always_expands"),
    ("activation after the depthwise part", "activates_depthwise"),
    ("activation after the projection", "activates_projection"),
    ("which blocks add their input", "shortcut"),
    ("whether blocks without a gate square", "squares_ungated"),
    ("activation of the first convolution", "stem_activation"),
    ("biases", "base_bias"),
    ("what follows the last convolution", "last"),
    ("a wide convolution behind it", "wide_channels"),
)
"""What decides what a backbone computes, besides its block table: fields of `Layout`. BatchNorm's
eps is converted."""


def network_of(arch: ArchSpec) -> Network:
    """Return the backbone of `arch`.

    Raises:
        SpecError: there is no such layout.
    """
    return Network(layout_of(arch), arch.backbone, arch.reduced_tail)


def network_of_family(family: BackboneFamily, backbone: Backbone) -> Network:
    """Return the network that the files of `family` hold."""
    named = family.layouts.get(backbone)
    layout = next((layout for layout in LAYOUTS if layout.name == named), None)
    return Network(layout, backbone, why_not=family.why_not.get(backbone, ""))


def differences(source: Network, target: Network) -> tuple[str, ...]:
    """Return in words what keeps `source`'s weights from computing the same in `target`.

    Widths are not compared: the shapes of the tensors show them.
    """
    if source.backbone is not target.backbone:
        mine, theirs = source.backbone.capitalize(), target.backbone.capitalize()
        return (f"it is MobileNetV3-{mine}, the detector's is {theirs}",)
    if source.layout is None or target.layout is None:
        return (source.why_not or target.why_not,)
    found = []
    for words, field_name in FACTS:
        mine, theirs = getattr(source.layout, field_name), getattr(target.layout, field_name)
        if mine != theirs:
            pair = f"{_in_words(mine)} in the file, {_in_words(theirs)} in the detector"
            found.append(f"{words} ({pair})")
    if _table(source) != _table(target):
        found.append(_other_table(source, target))
    return tuple(found)


def _other_table(source: Network, target: Network) -> str:
    if source.reduced_tail is not target.reduced_tail:
        mine, theirs = ("reduced" if n.reduced_tail else "full" for n in (source, target))
        return f"the tail ({mine} in the file, {theirs} in the detector)"
    return "the table of blocks (a stride, kernel, width or activation differs)"


def _table(network: Network) -> object:
    layout = network.layout
    key = (network.backbone, network.reduced_tail)
    return None if layout is None else layout.tables.get(key)


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value)
    return "none" if value is None else str(value).replace("_", " ")


def fed_layouts(source: Network) -> tuple[str, ...]:
    """Return the names of the layouts whose detectors take `source`'s weights exactly."""
    return tuple(
        layout.name
        for layout in LAYOUTS
        if (source.backbone, source.reduced_tail) in layout.tables
        and not differences(source, Network(layout, source.backbone, source.reduced_tail))
    )


def feeding_families(target: Network) -> tuple[str, ...]:
    """Return the names of the families whose files feed `target` exactly."""
    return tuple(
        family.name
        for family in BACKBONES
        if target.backbone in {*family.layouts, *family.why_not}
        and not differences(network_of_family(family, target.backbone), target)
    )
