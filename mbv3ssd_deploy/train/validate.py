"""Validation during training: mean average precision on the validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mbv3ssd_deploy.core.average_precision import ApReport, Protocol, average_precision
from mbv3ssd_deploy.core.detections import Detections, detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import DetectorSpec, InputSpec
from mbv3ssd_deploy.data.dataset import Sample
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent
from mbv3ssd_deploy.train.process import World, init_worker, iterated

_BATCH = 8
_NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
_Found = tuple[Detections, str]
"""The detections of an image, and why it could not be read."""


class Validation(NamedTuple):
    """The result of a validation; `problems` names the images that could not be read."""

    report: ApReport
    problems: tuple[str, ...]


def validate(  # noqa: PLR0913 -- a net, the images, and how to run them
    net: nn.Module,
    samples: Sequence[Sample],
    spec: DetectorSpec,
    *,
    device: torch.device,
    world: World,
    workers: int = 0,
    progress: Progress = silent,
) -> Validation:
    """Return the VOC07 average precision of `net` on `samples`, by the spec's own rules.

    Inputs, decoding and metric are those of `detect` and `eval`; the net runs in float32. An image
    that cannot be read counts as one without detections.

    Args:
        net: on `device`, in eval mode.
        samples: images with their truth.
        spec: of the net.
        device: of the net.
        world: the processes that share the images; each gets the whole report.
        workers: processes that read images.
        progress: called after every batch of images.
    """
    own = samples[world.rank :: world.size]
    loader = DataLoader(
        _Inputs(own, spec.input),
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=init_worker if workers else None,
    )
    found: list[_Found] = []
    progress("validate", 0, len(own))
    for batch in iterated(loader):
        found += _detections(net, batch, own[len(found) :], spec, device)
        progress("validate", len(found), len(own))
    shares = world.gathered(found)
    # put the shares back in the order of the samples
    ordered = [shares[index % world.size][index // world.size] for index in range(len(samples))]
    report = average_precision(
        [detections for detections, _ in ordered],
        [sample.truth for sample in samples],
        spec.num_classes,
        Protocol.VOC07,
    )
    return Validation(report, tuple(problem for _, problem in ordered if problem))


class _Inputs(TorchDataset[tuple[torch.Tensor, str]]):
    """The net's input for each image, and why it could not be read."""

    def __init__(self, samples: Sequence[Sample], spec: InputSpec) -> None:
        self._samples, self._spec = samples, spec

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        try:
            image = read_image(self._samples[index].image_path)
        except DatasetError as error:
            return torch.zeros((3, self._spec.height, self._spec.width)), str(error)
        return torch.from_numpy(input_from_image(image, self._spec)), ""


@torch.inference_mode()
def _detections(
    net: nn.Module,
    batch: Sequence[tuple[torch.Tensor, str]],
    samples: Sequence[Sample],
    spec: DetectorSpec,
    device: torch.device,
) -> Iterator[_Found]:
    """Yield what is found in the images of a batch, the first of `samples`."""
    inputs = torch.stack([tensor for tensor, _ in batch]).to(device)
    heads = net(inputs.contiguous(memory_format=torch.channels_last))
    locs, confs = (head.float().cpu().numpy() for head in heads)
    priors = build_priors(spec.priors)
    for loc, conf, (_, problem), sample in zip(locs, confs, batch, samples, strict=False):
        detections = detections_from_heads(loc, conf, spec, priors)
        yield _NOTHING if problem else scaled(detections, sample.width, sample.height), problem
