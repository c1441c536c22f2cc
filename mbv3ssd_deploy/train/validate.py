"""How good a net is while it learns: mean average precision on the validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
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
from mbv3ssd_deploy.nets.ssd import SsdNet
from mbv3ssd_deploy.train.batches import start_quietly
from mbv3ssd_deploy.train.distributed import Team

_BATCH = 8
_NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class Validation(NamedTuple):
    """What a validation found; `problems` names the images that could not be read."""

    report: ApReport
    problems: tuple[str, ...]


def validate(  # noqa: PLR0913 -- a net, the images, and how to go about it
    net: SsdNet,
    samples: Sequence[Sample],
    spec: DetectorSpec,
    *,
    device: torch.device,
    team: Team | None = None,
    workers: int = 0,
    protocol: Protocol = Protocol.VOC07,
    progress: Progress = silent,
) -> Validation:
    """Return the average precision of `net` on `samples`, by the spec's own rules.

    Inputs, decoding and metric are those of `detect` and `eval`. The net is put in eval mode and
    runs in float32. An image that cannot be read counts as one without detections.

    Args:
        net: on `device`.
        samples: images with their truth.
        spec: of the net.
        device: where the net is.
        team: the processes that share the images; each gets the whole report.
        workers: processes that read images.
        protocol: the metric.
        progress: called as images are done.
    """
    team = Team() if team is None else team
    net.eval()
    mine = samples[team.rank :: team.size]
    found = list(_found(net, mine, spec, device=device, workers=workers, progress=progress))
    shares = team.gathered([(one.detections, one.problem) for one in found])
    # put the shares back in the order of the samples
    ordered = [shares[index % team.size][index // team.size] for index in range(len(samples))]
    report = average_precision(
        [detections for detections, _ in ordered],
        [sample.truth for sample in samples],
        spec.num_classes,
        protocol,
    )
    return Validation(report, tuple(problem for _, problem in ordered if problem))


class _Input(NamedTuple):
    tensor: torch.Tensor
    problem: str


class _Found(NamedTuple):
    detections: Detections
    problem: str


class _Inputs(TorchDataset[_Input]):
    def __init__(self, samples: Sequence[Sample], spec: InputSpec) -> None:
        self._samples, self._spec = samples, spec

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> _Input:
        try:
            image = read_image(self._samples[index].image_path)
        except DatasetError as error:
            size = (3, self._spec.height, self._spec.width)
            return _Input(torch.zeros(size), str(error))
        return _Input(torch.from_numpy(input_from_image(image, self._spec)), "")


@torch.inference_mode()
def _found(  # noqa: PLR0913 -- as above
    net: SsdNet,
    samples: Sequence[Sample],
    spec: DetectorSpec,
    *,
    device: torch.device,
    workers: int,
    progress: Progress,
) -> Iterator[_Found]:
    loader = DataLoader(
        _Inputs(samples, spec.input),
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=start_quietly if workers else None,
    )
    priors = build_priors(spec.priors)
    done = 0
    progress("validate", 0, len(samples))
    for batch in loader:
        inputs = torch.stack([one.tensor for one in batch]).to(device)
        heads = net(inputs.contiguous(memory_format=torch.channels_last))
        locs, confs = (head.float().cpu().numpy() for head in heads)
        for loc, conf, one in zip(locs, confs, batch, strict=True):
            sample = samples[done]
            detections = detections_from_heads(loc, conf, spec, priors)
            kept = _NOTHING if one.problem else scaled(detections, sample.width, sample.height)
            yield _Found(kept, one.problem)
            done += 1
        progress("validate", done, len(samples))
