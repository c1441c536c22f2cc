"""The priors that a deployed file computes, compared with the checkpoint's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM
from mbv3ssd_deploy.core.arrays import F32, F64
from mbv3ssd_deploy.core.boxes import corners_from_centre, iou_matrix
from mbv3ssd_deploy.core.priors import build_priors, level_slices
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.build import BuiltNcnn
from mbv3ssd_deploy.ncnn_graph.graph import MBOX_PRIORBOX
from mbv3ssd_deploy.ncnn_graph.priors import PRIOR_TOLERANCE
from mbv3ssd_deploy.onnx_body.body import OnnxBody
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.verification.rules import Code, Reason


@dataclass(frozen=True, slots=True)
class PriorLevelDiff:
    """The priors of one level.

    Attributes:
        level: counted from 0.
        carrier: the layer that stores the level, such as "PriorBox".
        count: how many priors the level has.
        wrong: how many have a corner further away than the tolerance.
        worst_error: the largest distance of a corner coordinate, in units of the image.
    """

    level: int
    carrier: str
    count: int
    wrong: int
    worst_error: float


@dataclass(frozen=True, slots=True)
class PriorDiff:
    """The priors of a detector, over all levels.

    Attributes:
        levels: level by level.
        tolerance: the largest distance of a corner that still counts as the same prior.
        worst_index: the prior, of all P, with the most distant corner.
        worst_expected: its corners, normalised, in the checkpoint.
        worst_actual: the same in the deployed file.
        max_px: the largest distance in pixels of the network's input.
        worst_iou: the smallest overlap of a prior with its counterpart.
        max_variance_error: the largest distance of a box variance.
    """

    levels: tuple[PriorLevelDiff, ...]
    tolerance: float
    worst_index: int
    worst_expected: tuple[float, ...]
    worst_actual: tuple[float, ...]
    max_px: float
    worst_iou: float
    max_variance_error: float

    @property
    def count(self) -> int:
        """How many priors were compared: P."""
        return sum(level.count for level in self.levels)

    @property
    def wrong(self) -> int:
        """How many of them differ from the checkpoint's."""
        return sum(level.wrong for level in self.levels)

    @property
    def worst_error(self) -> float:
        """The largest distance of a corner coordinate, in units of the image."""
        return max(level.worst_error for level in self.levels)

    @property
    def passed(self) -> bool:
        """Whether all priors and variances are the checkpoint's."""
        return not self.reasons()

    @property
    def reason(self) -> str:
        """All reasons in one text."""
        return "; ".join(reason.text for reason in self.reasons())

    def reasons(self) -> tuple[Reason, ...]:
        """Return one reason for each level that is off, and one for variances."""
        found = [
            Reason(
                Code.PRIORS_DIFFER,
                f"{_called(level)}: {level.wrong} of {level.count} priors are "
                f"not the checkpoint's, by up to {level.worst_error:.3g} of the image",
            )
            for level in self.levels
            if level.wrong
        ]
        if self.max_variance_error > self.tolerance:
            text = f"box variances differ by up to {self.max_variance_error:.3g}"
            found.append(Reason(Code.VARIANCES_DIFFER, text))
        return tuple(found)


def compare_priors(
    spec: DetectorSpec,
    priorbox: F32,
    *,
    carriers: Sequence[str] = (),
    tolerance: float = PRIOR_TOLERANCE,
) -> PriorDiff:
    """Compare all priors that a deployed file computes with those of `spec`.

    Args:
        spec: the checkpoint's own.
        priorbox: (2, 4P) as ncnn lays it out: normalised corners, and below them the variances.
        carriers: the layer of each level in the file, for the report.
        tolerance: the largest distance of a corner coordinate, in units of the image.

    Raises:
        ValueError: `priorbox` is not (2, 4P).
    """
    expected = corners_from_centre(build_priors(spec.priors))
    if priorbox.shape != (2, expected.size):
        raise ValueError(f"priors are {priorbox.shape}, not (2, {expected.size})")
    actual, variances = priorbox.astype(np.float64).reshape(2, *expected.shape)
    gaps = _distances(expected, actual)
    worst = int(gaps.max(axis=1).argmax())
    size = (spec.input.width, spec.input.height) * 2
    slices = level_slices(spec.priors)
    names = carriers or ("",) * len(slices)
    return PriorDiff(
        levels=tuple(
            _level_diff(index, carrier, gaps[rows], tolerance)
            for index, (rows, carrier) in enumerate(zip(slices, names, strict=True))
        ),
        tolerance=tolerance,
        worst_index=worst,
        worst_expected=tuple(expected[worst].tolist()),
        worst_actual=tuple(actual[worst].tolist()),
        max_px=float((gaps * size).max()),
        worst_iou=_worst_iou(expected, actual),
        max_variance_error=float(_distances(np.array(spec.coder.variances), variances).max()),
    )


def _called(level: PriorLevelDiff) -> str:
    return f"level {level.level} ({level.carrier})" if level.carrier else f"level {level.level}"


def _distances(expected: F64, actual: F64) -> F64:
    """Return |actual - expected|, infinite where `actual` is NaN."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.abs(actual - expected), nan=np.inf, posinf=np.inf)


def _level_diff(index: int, carrier: str, gaps: F64, atol: float) -> PriorLevelDiff:
    wrong = int(np.count_nonzero(gaps.max(axis=1) > atol))
    return PriorLevelDiff(index, carrier, len(gaps), wrong, float(gaps.max()))


def _worst_iou(expected: F64, actual: F64) -> float:
    parts = [slice(start, start + 64) for start in range(0, len(expected), 64)]
    pairs = [iou_matrix(expected[part], actual[part]).diagonal() for part in parts]
    return float(np.concatenate(pairs).min())


def compare_built_priors(built: BuiltNcnn, body: OnnxBody) -> PriorDiff:
    """Run newly built files in ncnn, and compare every prior with those of the body's spec.

    Raises:
        SpecError: a prior differs.
        RuntimeFailedError: ncnn refused the files.
    """
    empty = np.zeros((1, *body.input_shape[1:]), np.float32)  # only the sizes of maps count
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as scratch:
        param, weights = Path(scratch, PARAM), Path(scratch, BIN)
        param.write_bytes(built.param)
        weights.write_bytes(built.weights)
        (blobs,) = NcnnModel(param, weights, exact=True).run_blobs(empty, (MBOX_PRIORBOX,))
    priors = compare_priors(body.spec, blobs[MBOX_PRIORBOX])
    if not priors.passed:
        raise SpecError(
            f"ncnn computes other priors than the checkpoint: {priors.reason}",
            hint="use --priors auto, or --priors constant for exact constants on every level",
        )
    return priors
