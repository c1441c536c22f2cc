"""From a request to decisions: every default filled in, every contradiction with a run named."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterator
from typing import NamedTuple

import torch

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.errors import CheckpointError, SpecError
from mbv3ssd_deploy.train.device import Precision
from mbv3ssd_deploy.train.recipe_table import DEFAULT_RECIPE, RECIPES
from mbv3ssd_deploy.train.recipes import Recipe
from mbv3ssd_deploy.train.request import TrainRequest
from mbv3ssd_deploy.train.snapshot import RunSettings, Snapshot
from mbv3ssd_deploy.train.training_data import TrainingData, fingerprint

_VALIDATIONS = 50
"""How many validations a run has, about, unless it is told."""


class Sources(NamedTuple):
    """Where the two data sets of a run lie."""

    data: str
    train_split: Split
    val_data: str
    val_split: Split


def recipe_named(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        SpecError: there is none.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        raise SpecError(
            f"there is no recipe {name!r}",
            hint=f"did you mean {close[0]}?" if close else f"one of {', '.join(RECIPES)}",
        )
    return RECIPES[name]


def settled_recipe(request: TrainRequest, snapshot: Snapshot | None) -> Recipe:
    """Return the recipe with the changes that were asked for; that of the run if it goes on.

    Raises:
        SpecError: an unknown recipe, or a value that makes no sense.
    """
    if snapshot is not None:
        return snapshot.record.recipe
    return recipe_named(request.recipe or DEFAULT_RECIPE).changed(**request.changes)


def settled_sources(request: TrainRequest, snapshot: Snapshot | None) -> Sources:
    """Return where the data lies; a run that goes on knows, but it may have moved.

    Raises:
        SpecError: nobody says where.
    """
    if snapshot is not None:
        known = snapshot.record.settings
        moved = request.data or known.data
        return Sources(
            moved,
            Split(known.train_split),
            request.val_data or (moved if known.val_data == known.data else known.val_data),
            Split(known.val_split),
        )
    if request.data is None:
        raise SpecError("no data to train on", hint="say --data voc:FOLDER")
    return Sources(
        request.data,
        request.train_split or Split.TRAIN,
        request.val_data or request.data,
        request.val_split or Split.VAL,
    )


def settled_settings(
    request: TrainRequest, recipe: Recipe, sources: Sources, data: TrainingData
) -> RunSettings:
    """Return the record of a new run."""
    return RunSettings(
        data=sources.data,
        train_split=sources.train_split.value,
        val_data=sources.val_data,
        val_split=sources.val_split.value,
        images=len(data.train),
        fingerprint=fingerprint(data.train.samples),
        seed=request.seed or 0,
        precision=(request.precision or Precision.AUTO).value,
        validate_every=request.validate_every or max(1, recipe.epochs // _VALIDATIONS),
        versions={
            "mbv3ssd-deploy": importlib.metadata.version("mbv3ssd-deploy"),
            "torch": str(torch.__version__),
        },
    )


def check_resumable(request: TrainRequest, snapshot: Snapshot) -> None:
    """Check that nothing in `request` contradicts the run that is to go on.

    Raises:
        CheckpointError: with every setting that differs.
    """
    differences = [
        f"{name} is {has}, not {asked}"
        for name, asked, has in _settings_asked(request, snapshot)
        if asked is not None and asked != has
    ]
    for name, value in (
        ("--pretrained", request.pretrained),
        ("--backbone", request.backbone_file),
    ):
        if value is not None:
            differences.append(f"{name} says how a run starts, and this one has started")
    if differences:
        raise CheckpointError(
            f"the run cannot go on with other settings: {'; '.join(differences)}",
            where=str(request.resume),
            hint="leave those flags out, or start a new run from it with --pretrained",
        )


def check_same_data(data: TrainingData, snapshot: Snapshot, where: str) -> None:
    """Check that a run that goes on sees the images and annotations that it saw before.

    Raises:
        CheckpointError: it does not.
    """
    spec, settings = snapshot.spec, snapshot.record.settings
    if data.class_names != spec.class_names:
        reason = (
            f"its classes are {', '.join(spec.class_names[1:])}, "
            f"those of the data {', '.join(data.class_names[1:])}"
        )
    elif len(data.train) != settings.images:
        reason = f"it was trained on {settings.images} images, and now there are {len(data.train)}"
    elif fingerprint(data.train.samples) != settings.fingerprint:
        reason = "names or annotations of the training images have changed"
    else:
        return
    raise CheckpointError(
        f"the run cannot go on with other data: {reason}",
        where=where,
        hint="start a new run from it with --pretrained",
    )


def _settings_asked(
    request: TrainRequest, snapshot: Snapshot
) -> Iterator[tuple[str, object, object]]:
    """Yield what was asked for (None where nothing was), beside what the run has."""
    spec, record = snapshot.spec, snapshot.record
    arch, size = spec.arch, (spec.input.height, spec.input.width)
    settings, recipe = record.settings, record.recipe
    yield "the architecture", _text(request.backbone), _text(arch.backbone)
    yield "the width", request.width_mult, arch.width_mult
    yield "the image size", request.image_size, size
    yield "the recipe", request.recipe, recipe.name
    yield "the seed", request.seed, settings.seed
    yield "the precision", _text(request.precision), settings.precision
    yield "the training split", _text(request.train_split), settings.train_split
    yield "the validation split", _text(request.val_split), settings.val_split
    yield "val-every", request.validate_every, settings.validate_every
    yield "the list of classes", _names(request.class_names), _names(spec.class_names)
    for name, value in request.changes.items():
        yield name, value, getattr(recipe, name)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _names(class_names: tuple[str, ...] | None) -> str | None:
    return None if class_names is None else ", ".join(class_names[1:])


def check_batch(recipe: Recipe, images: int, processes: int) -> int:
    """Return how many images a step takes: the recipe's batch, or all of a small data set.

    Raises:
        SpecError: they cannot be shared out evenly, or a process would get fewer than two.
    """
    batch = min(recipe.batch, images)
    if processes > 1 and batch % processes:
        raise SpecError(f"a batch of {batch} cannot be shared by {processes} processes evenly")
    if batch // processes < 2:
        raise SpecError(
            f"a process learns from {batch // processes} image at a time, and BatchNorm needs two",
            hint="give a larger --batch, or more images",
        )
    return batch
