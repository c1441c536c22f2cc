"""The net that a run starts from: fresh, on a backbone that can see, or from another detector."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mbv3ssd_deploy.checkpoint.backbones.load import apply_backbone, load_backbone
from mbv3ssd_deploy.checkpoint.families.native import native_spec
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.spec import Backbone, DetectorSpec, PriorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.nets.build import build_net
from mbv3ssd_deploy.nets.ssd import SsdNet
from mbv3ssd_deploy.train.priors import (
    THRESHOLD,
    LabelledBoxes,
    fit_of_priors,
    labelled_boxes,
    proposed_priors,
)
from mbv3ssd_deploy.train.recipes import Recipe
from mbv3ssd_deploy.train.request import TrainRequest
from mbv3ssd_deploy.train.training_data import TrainingData

_FOREGROUND_SHARE = 0.01
"""How likely a fresh head finds an object in a prior: RetinaNet's pi (arXiv 1708.02002, 4.1)."""
_NO_BETTER = (
    "that is poor, but no other sizes of the priors fit better; "
    "where objects are small, a larger --imgsz makes them larger"
)


class Start(NamedTuple):
    """A net in training mode, its spec, and what a user should know about its weights."""

    net: SsdNet
    spec: DetectorSpec
    notices: tuple[str, ...]


def new_start(request: TrainRequest, recipe: Recipe, data: TrainingData) -> Start:
    """Return the net that a new run starts from; random weights come from torch's present seed.

    Raises:
        CheckpointError: a file to start from is no detector or backbone, or does not fit.
        SpecError: settings contradict each other.
    """
    objects = labelled_boxes(data.train.samples)
    if request.pretrained is not None:
        _check_free_of_shape(request)
        start = start_from_detector(request.pretrained, data.class_names)
        return Start(start.net, start.spec, (*start.notices, _words_on_fit(start.spec, objects)))
    spec = _spec_for(request, recipe, data.class_names)
    notices = [_words_on_fit(spec, objects)]
    if request.fit_priors and fit_of_priors(spec.priors, objects).is_poor:
        priors = proposed_priors(spec.priors, objects)
        if priors == spec.priors:
            notices.append(_NO_BETTER)
        else:
            spec = dataclasses.replace(spec, priors=priors)
            notices += [_words_on_sizes(priors), _words_on_fit(spec, objects)]
    net = build_net(spec)
    expect_background(net, spec.num_classes)
    if request.backbone_file is not None:
        loaded = load_backbone(request.backbone_file, spec)
        apply_backbone(net, loaded)
        notices += [f"backbone weights of {loaded.family} from {loaded.path}", *loaded.notices]
    return Start(net, spec, tuple(notices))


def _spec_for(request: TrainRequest, recipe: Recipe, class_names: tuple[str, ...]) -> DetectorSpec:
    return native_spec(
        request.backbone or Backbone(recipe.backbone),
        class_names,
        image_size=request.image_size or (recipe.image_size, recipe.image_size),
        width_mult=1.0 if request.width_mult is None else request.width_mult,
    )


def _check_free_of_shape(request: TrainRequest) -> None:
    """Check that nothing is asked for that --pretrained decides."""
    given = {
        "--arch": request.backbone,
        "--width": request.width_mult,
        "--imgsz": request.image_size,
        "--backbone": request.backbone_file,
    }
    clash = [name for name, value in given.items() if value is not None]
    if clash:
        raise SpecError(
            f"the detector given with --pretrained decides what {', '.join(clash)} would say",
            hint="leave them out",
        )


def _words_on_fit(spec: DetectorSpec, objects: LabelledBoxes) -> str:
    fit = fit_of_priors(spec.priors, objects)
    return (
        f"{fit.recall:.1%} of the objects overlap a prior by {THRESHOLD} or more (the mean of the "
        f"classes; least of all {spec.class_names[fit.worst_label]}, {fit.worst_recall:.1%})"
    )


def _words_on_sizes(priors: PriorSpec) -> str:
    sizes = ", ".join(
        f"{level.min_size:g}"
        if level.max_size is None
        else f"{level.min_size:g} and {math.sqrt(level.min_size * level.max_size):.0f}"
        for level in priors.levels
    )
    return (
        f"that is poor, so the sizes of the priors were made for the data (--priors default keeps "
        f"the standard ones); squares level by level, of {priors.frame_width:g}: {sizes}"
    )


def start_from_detector(path: Path, class_names: tuple[str, ...]) -> Start:
    """Return the detector in the file at `path`, made ready for the classes `class_names`.

    Same classes in the same order: all weights are kept. Otherwise the classification head is made
    anew; backbone, extras and box regression stay.

    Raises:
        CheckpointError: the file is no detector of a known family.
    """
    loaded = load_detector(path)
    spec = dataclasses.replace(loaded.spec, family="native", class_names=class_names)
    if loaded.spec.class_names == class_names:
        return Start(loaded.net.train(), spec, (*loaded.notices, f"all weights from {path}"))
    net = build_net(spec)
    expect_background(net, spec.num_classes)
    kept = {
        key: value
        for key, value in loaded.net.state_dict().items()
        if not key.startswith("head.classification_head.")
    }
    net.load_state_dict(kept, strict=False)
    notice = (
        f"the classification head was made anew for {len(class_names) - 1} classes "
        f"({path} has {loaded.spec.num_classes - 1}); all other weights were kept"
    )
    return Start(net, spec, (*loaded.notices, notice))


@torch.no_grad()
def expect_background(net: SsdNet, num_classes: int) -> None:
    """Set the biases of the classification head so that nearly every prior says "background".

    With biases of 0 the first steps would only learn that most priors hold nothing.
    """
    share = (num_classes - 1) * (1 - _FOREGROUND_SHARE) / _FOREGROUND_SHARE
    for predictor in net.head.classification_head.module_list:
        last = predictor[-1] if isinstance(predictor, nn.Sequential) else predictor
        if isinstance(last, nn.Conv2d) and last.bias is not None:
            last.bias.view(-1, num_classes)[:, 0] = math.log(share)
