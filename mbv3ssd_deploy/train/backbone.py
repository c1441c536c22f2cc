"""Backbones: what the training of a classifier adds to the training loop.

A detector starts better from a backbone that has learned to classify.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch.nn import functional

from mbv3ssd_deploy.checkpoint.backbones.load import apply_backbone, load_backbone
from mbv3ssd_deploy.checkpoint.families.torchvision import native_spec
from mbv3ssd_deploy.core.spec import Backbone, ClassifierSpec
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.folders import (
    NO_CLASS_AUGMENTATION,
    ClassificationSet,
    ClassSamples,
    crops_of_objects,
    read_image_folder,
)
from mbv3ssd_deploy.data.hash_split import SPLIT_SEED
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.nets.build import ClassifierNet, build_classifier
from mbv3ssd_deploy.train.batches import CACHE_BYTES, Batch, Examples, class_labels, open_in_order
from mbv3ssd_deploy.train.history import BACKBONE_CURVES
from mbv3ssd_deploy.train.loss import LossSums
from mbv3ssd_deploy.train.snapshot import BACKBONE, RunSettings
from mbv3ssd_deploy.train.state import Part, TrainState
from mbv3ssd_deploy.train.trainer import Task

BACKBONE_FILE = "backbone.pth"
_IMAGE_SIZE = (224, 224)
_VALIDATION_BATCH = 32


class BackboneTask(Task):
    """A classifier: cross-entropy, and accuracy on the validation images."""

    kind = BACKBONE
    best_name = BACKBONE_FILE
    curves = BACKBONE_CURVES
    losses = MappingProxyType({"loss": "the loss"})
    measures = ("top1", "top5")
    not_finite_hint = "try a tenth of the learning rate (--lr)"
    spec: ClassifierSpec
    _train: ClassificationSet
    _val: ClassificationSet

    def read_data(self, settings: RunSettings, class_names: tuple[str, ...] | None) -> None:
        """Read both data sets; the classes are those of the training data."""
        del class_names
        self._train = self._read(settings.data, settings.train_split)
        self._val = self._read(settings.val_data, settings.val_split)
        self.report_problems(self._train.problems, self._val.problems)
        self.class_names = self._train.class_names
        if self.class_names != self._val.class_names:
            raise DatasetError(
                "training and validation images have different classes", where=settings.data
            )
        self.image_ids = [str(image.image_path) for image in self._train.images]
        digest = hashlib.sha256()
        for image in self._train.images:
            window = image.window or ()
            digest.update(repr((image.image_path.name, image.label, *window)).encode())
        self.fingerprint = digest.hexdigest()

    def _read(self, source: str, part: str) -> ClassificationSet:
        """Read `folder:ROOT`, or cut the objects out of a detection source."""
        kind, _, place = source.partition(":")
        # the split's own seed, not the run's: no test image of a later detector may be trained on
        split, seed, progress = Split(part), SPLIT_SEED, self.observer.progress
        if kind == "folder":
            return read_image_folder(Path(place), split, seed=seed, progress=progress)
        try:
            return crops_of_objects(read_dataset(source, split, seed=seed, progress=progress))
        except DatasetError as error:
            if not place:
                error.hint = f"{error.hint}; a folder of class folders is folder:{source}"
            raise

    def start(self) -> ClassifierNet:
        """Return a new classifier; its spec has arch and input of the detectors to come."""
        request, backbone = self.request, self.request.backbone or Backbone.SMALL
        detector = native_spec(
            backbone,
            ("background", "object"),
            image_size=request.image_size or _IMAGE_SIZE,
            width_mult=1.0 if request.width_mult is None else request.width_mult,
        )
        name = f"mobilenet_v3_{backbone}"
        net = self.restart(ClassifierSpec(name, detector.arch, detector.input, self.class_names))
        if request.backbone_file is not None:
            arch, classes = self.spec.arch, self.spec.num_classes
            loaded = load_backbone(request.backbone_file, arch, num_classes=classes)
            apply_backbone(net, loaded)
            self.observer.note(f"weights of {loaded.family} from {loaded.path}")
            self.note_all(loaded.notices)
        return net

    def restart(self, spec: ClassifierSpec) -> ClassifierNet:
        """Return the net of `spec`."""
        self.spec = spec
        return build_classifier(spec.arch, spec.num_classes, dropout=self.recipe.dropout)

    def parts(self, net: ClassifierNet) -> Sequence[Part]:
        """Return backbone and classifier."""
        return (Part((net.backbone,), self.recipe.backbone_lr), Part((net.classifier,)))

    def examples(self, seed: int) -> Examples:
        """Return random crops."""
        spec = self.spec.input
        samples = ClassSamples(self._train, spec, seed=seed, cache_bytes=CACHE_BYTES)
        return Examples(samples, class_labels)

    def loss_sums(self, state: TrainState, batch: Batch) -> LossSums:
        """Return the cross-entropy, and the number of images."""
        loss = functional.cross_entropy(
            state.forward(batch.inputs).float(),
            batch.targets.to(state.device),
            label_smoothing=self.recipe.label_smoothing,
            reduction="sum",
        )
        return LossSums((loss,), loss.new_tensor(len(batch.targets)))

    @torch.no_grad()
    def validate(self, state: TrainState, workers: int) -> tuple[float, ...]:
        """Return the shares of images whose class has the best score, and one of the best five."""
        net, world = state.eval_net(), state.world
        samples = ClassSamples(self._val, self.spec.input, seed=0, options=NO_CLASS_AUGMENTATION)
        own = range(world.rank, len(samples), world.size)
        examples, ranks = Examples(samples, class_labels), list[int]()
        for batch in open_in_order(examples, own, _VALIDATION_BATCH, workers=workers):
            self.check_images(batch)
            inputs = batch.inputs.to(state.device, memory_format=torch.channels_last)
            ranks += ranks_of(net(inputs).cpu(), batch.targets).tolist()
        rank = torch.tensor([one for share in world.gathered(ranks) for one in share])
        top5 = float((rank < 5).double().mean()) if self.spec.num_classes > 5 else math.nan
        return float((rank < 1).double().mean()), top5


def ranks_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (N,), how many classes have a higher logit (N, C) than the true one, `labels` (N,)."""
    return (logits > logits.gather(1, labels[:, None])).sum(dim=1)
