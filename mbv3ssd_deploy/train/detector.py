"""Detectors: what the training of an SSD adds to the training loop.

A new net starts from random weights, from a backbone, or from another detector.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from mbv3ssd_deploy.checkpoint.backbones.load import apply_backbone, load_backbone
from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.checkpoint.load import load_detector
from mbv3ssd_deploy.core.average_precision import ApReport, Protocol, average_precision
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import Backbone, DetectorSpec, PriorSpec
from mbv3ssd_deploy.data.augment import NO_AUGMENTATION
from mbv3ssd_deploy.data.dataset import Dataset, Sample, Split
from mbv3ssd_deploy.data.hash_split import SPLIT_SEED
from mbv3ssd_deploy.data.loader import TrainingSamples
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError, SpecError, first_few
from mbv3ssd_deploy.nets.build import SsdNet, build_net
from mbv3ssd_deploy.train.batches import CACHE_BYTES, Batch, Examples, open_in_order, padded_truths
from mbv3ssd_deploy.train.config import Freeze
from mbv3ssd_deploy.train.history import DETECTOR_CURVES
from mbv3ssd_deploy.train.loss import LossSums, Truths, match_priors, ssd_loss
from mbv3ssd_deploy.train.priors import THRESHOLD, fit_of_priors, labelled_boxes, proposed_priors
from mbv3ssd_deploy.train.snapshot import DETECTOR, RunSettings
from mbv3ssd_deploy.train.state import Part, TrainState
from mbv3ssd_deploy.train.trainer import Task

BEST = "best.pth"
_LISTED = 8
_BATCH = 8
"""The batch size of validation."""
_NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
_FOREGROUND_SHARE = 0.01
"""The probability of an object in a prior that a new head predicts: RetinaNet's pi (arXiv
1708.02002, section 4.1)."""
_NO_BETTER = (
    "that is poor, but no other sizes of the priors fit better; "
    "where objects are small, a larger --imgsz makes them larger"
)


class DetectorTask(Task):
    """A detector: SSD's loss, and mAP on the validation images; `report` is the last one's."""

    kind = DETECTOR
    best_name = BEST
    curves = DETECTOR_CURVES
    losses = MappingProxyType(
        {"localisation": "the loss of the boxes", "classification": "the loss of the classes"}
    )
    measures = ("mean_ap",)
    not_finite_hint = (
        "try a tenth of the learning rate (--lr), a longer warm-up, --clip-norm 10, "
        "or --precision float32"
    )
    spec: DetectorSpec
    report: ApReport | None = None
    _train: Dataset
    _val: Dataset

    def read_data(self, settings: RunSettings, class_names: tuple[str, ...] | None) -> None:
        """Read both data sets and report what a user should know of them."""
        train = self._train = self._read(settings.data, settings.train_split, class_names)
        val = self._val = self._read(settings.val_data, settings.val_split, train.class_names)
        if not any(len(sample.truth) for sample in train.samples):
            raise DatasetError("there is no object to train on", where=settings.data)
        self.report_problems(train.problems, val.problems)
        unseen = _classes_without_objects(train)
        if unseen:
            missing = first_few([repr(name) for name in unseen], _LISTED)
            self.observer.note(f"no training image shows {missing}: that will never be found")
        known = {sample.image_path for sample in train.samples}
        shared = sum(sample.image_path in known for sample in val.samples)
        if shared:
            self.observer.note(
                f"{shared} of {len(val)} validation images are training images too: "
                "the mAP will be too high"
            )
        self.class_names = train.class_names
        self.image_ids = [sample.image_id for sample in train.samples]
        self.fingerprint = _fingerprint(train.samples)

    def _read(self, source: str, part: str, class_names: tuple[str, ...] | None) -> Dataset:
        # the split's own seed, not the run's: `eval` has to find the same test images
        split, seed, progress = Split(part), SPLIT_SEED, self.observer.progress
        return read_dataset(source, split, class_names=class_names, seed=seed, progress=progress)

    def start(self) -> SsdNet:
        """Return a new net, with weights from the files that the request names."""
        request = self.request
        if request.pretrained is not None:
            net = self._start_from_detector(request.pretrained)
            self._note_fit()
            return net
        self.spec = native_spec(
            request.backbone or Backbone(self.recipe.backbone),
            self.class_names,
            image_size=request.image_size or (self.recipe.image_size, self.recipe.image_size),
            width_mult=1.0 if request.width_mult is None else request.width_mult,
        )
        self._note_fit()
        if request.fit_priors:
            self._fit_priors()
        net = build_net(self.spec)
        expect_background(net, self.spec.num_classes)
        if request.backbone_file is not None:
            loaded = load_backbone(request.backbone_file, self.spec)
            apply_backbone(net, loaded)
            self.observer.note(f"backbone weights of {loaded.family} from {loaded.path}")
            self.note_all(loaded.notices)
        return net

    def _start_from_detector(self, path: Path) -> SsdNet:
        """Return the detector in the file at `path`, for the classes of the data.

        Same classes in the same order: all weights are kept. Otherwise the classification head is
        new; backbone, extras and box regression are kept.
        """
        given = {
            "--arch": self.request.backbone,
            "--width": self.request.width_mult,
            "--imgsz": self.request.image_size,
            "--backbone": self.request.backbone_file,
        }
        clash = ", ".join(name for name, value in given.items() if value is not None)
        if clash:
            raise SpecError(f"--pretrained already decides {clash}", hint="leave them out")
        loaded, names = load_detector(path), self.class_names
        self.spec = dataclasses.replace(loaded.spec, family="native", class_names=names)
        self.note_all(loaded.notices)
        if loaded.spec.class_names == names:
            self.observer.note(f"all weights from {path}")
            return loaded.net.train()
        net = build_net(self.spec)
        expect_background(net, self.spec.num_classes)
        kept = {
            key: value
            for key, value in loaded.net.state_dict().items()
            if not key.startswith("head.classification_head.")
        }
        net.load_state_dict(kept, strict=False)
        self.observer.note(
            f"the classification head is new, for {len(names) - 1} classes "
            f"({path} has {loaded.spec.num_classes - 1}); all other weights were kept"
        )
        return net

    def _note_fit(self) -> None:
        fit = fit_of_priors(self.spec.priors, labelled_boxes(self._train.samples))
        worst = self.spec.class_names[fit.worst_label]
        self.observer.note(
            f"{fit.recall:.1%} of the objects overlap a prior by {THRESHOLD} or more (the mean of "
            f"the classes; least of all {worst}, {fit.worst_recall:.1%})"
        )

    def _fit_priors(self) -> None:
        """Fit the sizes of the spec's priors to the data where the present ones fit poorly."""
        objects, present = labelled_boxes(self._train.samples), self.spec.priors
        if not fit_of_priors(present, objects).is_poor:
            return
        priors = proposed_priors(present, objects)
        if priors == present:
            self.observer.note(_NO_BETTER)
            return
        self.spec = dataclasses.replace(self.spec, priors=priors)
        self.observer.note(
            "that is poor, so the sizes of the priors were fitted to the data (--priors default "
            f"keeps the standard ones); squares level by level, of {priors.frame_width:g}: "
            f"{_sizes_of(priors)}"
        )
        self._note_fit()

    def restart(self, spec: DetectorSpec) -> SsdNet:
        """Return the net of `spec`."""
        self.spec = spec
        return build_net(spec)

    def parts(self, net: SsdNet) -> Sequence[Part]:
        """Return backbone, extras and heads."""
        recipe, backbone = self.recipe, net.backbone
        features = (backbone.features, backbone.rest)
        extras = (backbone.extra, backbone.first_norm)
        return (
            Part(features, recipe.backbone_lr, recipe.freeze is not Freeze.NOTHING),
            Part(extras, recipe.extras_lr, recipe.freeze is Freeze.ALL_BUT_HEADS),
            Part((net.head,)),
        )

    def examples(self, seed: int) -> Examples:
        """Return augmented images with their objects."""
        recipe, spec = self.recipe, self.spec.input
        samples = TrainingSamples(
            self._train, spec, seed=seed, options=recipe.augmentation, cache_bytes=CACHE_BYTES
        )
        flip = recipe.vertical_flip
        return Examples(samples, padded_truths, seed=seed, vertical_flip=flip)

    @functools.cached_property
    def _priors(self) -> torch.Tensor:
        return torch.from_numpy(build_priors(self.spec.priors)).float()

    def loss_sums(self, state: TrainState, batch: Batch) -> LossSums:
        """Return localisation and classification loss, and the number of matched priors."""
        truths = Truths(*(part.to(state.device, non_blocking=True) for part in batch.targets))
        priors, threshold = self._priors.to(state.device), self.recipe.match_threshold
        targets = match_priors(truths, priors, self.spec.coder, threshold=threshold)
        loc, conf = state.forward(batch.inputs)
        return ssd_loss(
            loc,
            conf,
            targets,
            negatives_per_positive=self.recipe.negatives_per_positive,
            smooth_l1_beta=self.recipe.smooth_l1_beta,
        )

    @torch.inference_mode()
    def validate(self, state: TrainState, workers: int) -> tuple[float, ...]:
        """Return the VOC07 mAP, by the spec's own rules: those of `detect` and `eval`.

        An image that cannot be read counts as one without detections.
        """
        samples, world, spec = self._val.samples, state.world, self.spec
        inputs = TrainingSamples(self._val, spec.input, seed=0, options=NO_AUGMENTATION)
        net, priors = state.eval_net(), build_priors(spec.priors)
        own = range(world.rank, len(samples), world.size)
        found: dict[int, Detections] = {}
        problems: list[str] = []
        self.observer.progress("validate", 0, len(own))
        for batch in open_in_order(Examples(inputs, padded_truths), own, _BATCH, workers=workers):
            problems += batch.problems
            if batch.indices:
                heads = net(batch.inputs.to(state.device, memory_format=torch.channels_last))
                locs, confs = (head.float().cpu().numpy() for head in heads)
                for index, loc, conf in zip(batch.indices, locs, confs, strict=True):
                    size = samples[index].width, samples[index].height
                    found[index] = scaled(detections_from_heads(loc, conf, spec, priors), *size)
            self.observer.progress("validate", len(found) + len(problems), len(own))
        self.note_all(
            f"not measured: {problem}" for share in world.gathered(problems) for problem in share
        )
        every = {i: one for share in world.gathered(list(found.items())) for i, one in share}
        self.report = average_precision(
            [every.get(index, _NOTHING) for index in range(len(samples))],
            [sample.truth for sample in samples],
            spec.num_classes,
            Protocol.VOC07,
        )
        return (self.report.mean,)


def _classes_without_objects(train: Dataset) -> list[str]:
    """Return the classes that no object can teach."""
    seen: set[int] = set()
    for sample in train.samples:
        truth = sample.truth
        seen.update(truth.labels[~(truth.crowd | truth.difficult)].tolist())
    return [name for label, name in enumerate(train.class_names) if label and label not in seen]


def _fingerprint(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.image_id.encode())
        digest.update(sample.truth.boxes.tobytes())
        digest.update(sample.truth.labels.tobytes())
    return digest.hexdigest()


def _sizes_of(priors: PriorSpec) -> str:
    return ", ".join(
        f"{level.min_size:g}"
        if level.max_size is None
        else f"{level.min_size:g} and {math.sqrt(level.min_size * level.max_size):.0f}"
        for level in priors.levels
    )


@torch.no_grad()
def expect_background(net: SsdNet, num_classes: int) -> None:
    """Set the biases of the classification head so that nearly every prior predicts background.

    With biases of 0 the first steps would only learn that most priors hold nothing.
    """
    share = (num_classes - 1) * (1 - _FOREGROUND_SHARE) / _FOREGROUND_SHARE
    for predictor in net.head.classification_head.module_list:
        last = predictor[-1] if isinstance(predictor, nn.Sequential) else predictor
        if isinstance(last, nn.Conv2d) and last.bias is not None:
            last.bias.view(-1, num_classes)[:, 0] = math.log(share)
