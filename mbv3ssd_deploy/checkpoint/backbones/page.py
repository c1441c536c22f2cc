"""The table of docs/backbones.md: which backbone feeds which detector, exactly or not at all."""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.backbones.family import BackboneFamily
from mbv3ssd_deploy.checkpoint.backbones.table import BACKBONES
from mbv3ssd_deploy.checkpoint.backbones.wiring import fed_layouts, network_of_family
from mbv3ssd_deploy.core.spec import Backbone

_HEAD = """# Backbone weights

Made from the table of the backbone families by `make docs`; do not edit.

A training starts well from a backbone that has learned to classify. `load_backbone` reads the
classification weights that are public, the result of our own `train-backbone`, and the backbone of
any detector that this version loads. It takes every tensor of the backbone or refuses the file
with the reason: shapes alone decide nothing, because networks that compute different things share
them (gates with and without pooling, for one). Nothing is loaded in part.

`inspect FILE` says what a file is and which detectors it feeds.

## Which backbone feeds which detector

A detector is named by its layout (a row of `nets/layouts.py`). The layout `torchvision` is that of
`native` detectors too; `ujsyehao` and `compact` have the same backbone.

| family | files | Large feeds exactly | Small feeds exactly |
|---|---|---|---|
"""
_TAIL = """
A detector feeds every detector with the same backbone, whatever its classes, priors and heads are,
and what `train-backbone` makes feeds those of its own layout. The widths must be the same; no
weights are cut or stretched. jungin500's files of width 0.5 narrow other parts than a detector of
that width does, and feed none; d-li14's of 0.75 were not at hand, and their shapes decide.

## What is taken

Everything but the classifier: pooling and dense layers stand behind the backbone, and no detector
runs them. A `train-backbone` run takes the classifier too where it computes what ours does (that
of torchvision, timm, d-li14 and our own) and predicts as many classes; otherwise it is dropped
whole. Every key that is dropped is listed with its reason.

tongyuhome's classifier holds two backbones. Its forward runs and trains `init_conv`, `block`,
`out_conv1` and `out_conv2`; its SSD reads `features`, which stay as they were drawn. We take the
trained one.

**BatchNorm's eps.** timm adds 1e-5 to the variance, the layout `torchvision` 1e-3. A BatchNorm is
`factor * (x - mean) / sqrt(variance + eps) + bias`, so the factor times
`sqrt((variance + 1e-3) / (variance + 1e-5))` makes the numbers equal. To move the variance by the
difference instead would be exact too, but makes it negative where it is small, and is lost as soon
as training measures the variance anew.

**The input.** These backbones were trained on inputs that are scaled as the table below says; a
detector goes on with the scale of its own spec. That is a start, no error: the BatchNorms learn
the new scale.

## Facts

| family | BatchNorm eps | trained on | remarks |
|---|---|---|---|
"""
_FOOT = """
Verified: on the weights of 19 recorded files (`tests/data/backbones.npz`) each fed network computes
the outputs of the original code within 1e-5 (of numbers up to 5; equal to the last bit for
torchvision's and jungin500's), and the pairs that are not in the table are refused. For `mmdet`
and `mmdet_l2norm` that means torchvision's and timm's numbers in our network of that layout;
mmdetection itself was not run.
Published files themselves were not at hand, and trained weights were not seen.
"""


def render_backbone_page() -> str:
    """Return docs/backbones.md."""
    fed, facts = "".join(map(_fed_row, BACKBONES)), "".join(map(_fact_row, BACKBONES))
    return _HEAD + fed + _TAIL + facts + _FOOT


def _fed_row(family: BackboneFamily) -> str:
    cells = " | ".join(_fed_cell(family, backbone) for backbone in Backbone)
    return f"| `{family.name}` | {family.title} | {cells} |\n"


def _fed_cell(family: BackboneFamily, backbone: Backbone) -> str:
    if backbone not in {*family.layouts, *family.why_not}:
        return "there is none"
    network = network_of_family(family, backbone)
    layouts = ", ".join(f"`{name}`" for name in fed_layouts(network))
    return layouts or f"no detector: {network.why_not}"


def _fact_row(family: BackboneFamily) -> str:
    notes = "; ".join(family.notes)
    return f"| `{family.name}` | {family.bn_eps:g} | {family.trained_on} | {notes} |\n"
