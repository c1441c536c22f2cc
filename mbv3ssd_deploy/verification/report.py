"""VerificationReport: what was compared, what was found, and the verdict."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.device.golden import LIMITS
from mbv3ssd_deploy.errors import BundleError, FormatError
from mbv3ssd_deploy.io.records import Json, json_from_record, parse_json, record_from_json
from mbv3ssd_deploy.verification.detections import MATCH_IOUS, DetectionDiff
from mbv3ssd_deploy.verification.priors import PriorDiff
from mbv3ssd_deploy.verification.rules import (
    MIN_REFERENCE_BOXES,
    PASS_RULE,
    RULES,
    Check,
    Code,
    Reason,
    too_few_boxes,
)
from mbv3ssd_deploy.verification.tensors import TensorDiff

SCHEMA = 1


class Status(enum.StrEnum):
    """The result of one check."""

    PASS = "PASS"  # noqa: S105 -- a verdict
    FAIL = "FAIL"
    UNPROVEN = "UNPROVEN"
    """It ran, and there was too little to compare."""
    SKIPPED = "SKIPPED"
    INFO = "INFO"
    """For information; it never fails."""


class Verdict(enum.StrEnum):
    """The result of all checks."""

    PASS = "PASS"  # noqa: S105 -- a verdict
    FAIL = "FAIL"
    NOT_ENOUGH_EVIDENCE = "NOT ENOUGH EVIDENCE"


@dataclass(frozen=True, slots=True)
class Row:
    """One check of one runtime.

    Attributes:
        check: which.
        title: what ran, for people.
        ran: the provider or device that really ran, and its precision; empty when none did.
        status: the result.
        note: why it was skipped, or what was found, in a few words.
        reasons: why it failed or proves nothing.
        heads: the raw heads, one diff a tensor, over all images.
        detections: the boxes, over all images.
        priors: all priors of the file.
        seconds: how long the runtime computed, over all images; to start and to load not counted.
    """

    check: Check
    title: str
    ran: str
    status: Status
    note: str = ""
    reasons: tuple[Reason, ...] = ()
    heads: tuple[TensorDiff, ...] = ()
    detections: DetectionDiff | None = None
    priors: PriorDiff | None = None
    seconds: float = 0.0


def judged(reasons: tuple[Reason, ...]) -> Status:
    """Return what `reasons` amount to."""
    if any(reason.code is not Code.TOO_FEW_BOXES for reason in reasons):
        return Status.FAIL
    return Status.UNPROVEN if reasons else Status.PASS


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that could not be used, and why."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All that `verify` found.

    Attributes:
        name: the detector.
        family: where it comes from.
        reference: what the others were compared with, in words.
        checkpoint_sha256: the checkpoint that it was loaded from.
        rows: the checks.
        images: the images that were used.
        skipped: those that were not.
        reference_boxes: how many boxes the reference found on them, by the family's own rules.
        versions: of everything that ran.
        seconds: how long it all took.
    """

    name: str
    family: str
    reference: str
    checkpoint_sha256: str
    rows: tuple[Row, ...]
    images: tuple[str, ...]
    skipped: tuple[LeftOut, ...]
    reference_boxes: int
    versions: Mapping[str, str]
    seconds: float

    @property
    def pass_rule(self) -> str:
        """When the verdict is PASS, in one sentence."""
        return PASS_RULE

    @property
    def verdict(self) -> Verdict:
        """FAIL if any check failed; PASS only if something was proven and nothing left unproven."""
        states = {row.status for row in self.rows}
        if Status.FAIL in states:
            return Verdict.FAIL
        ran = any(row.status is Status.PASS and row.detections for row in self.rows)
        enough = self.reference_boxes >= MIN_REFERENCE_BOXES
        if not ran or not enough or Status.UNPROVEN in states:
            return Verdict.NOT_ENOUGH_EVIDENCE
        return Verdict.PASS

    @property
    def exit_code(self) -> int:
        """0 when the verdict is PASS, else 1."""
        return 0 if self.verdict is Verdict.PASS else 1

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the verdict is not PASS, check by check, each reason once."""
        every = [reason for row in self.rows for reason in _titled(row)]
        if self.reference_boxes < MIN_REFERENCE_BOXES:
            every.insert(0, too_few_boxes(self.reference_boxes))
        return tuple(dict.fromkeys(every))

    @property
    def headline(self) -> str:
        """The result in the task's own unit, in one line."""
        compared = [row for row in self.rows if row.detections is not None and row.check in RULES]
        parts = []
        for row in compared:
            diff, iou = row.detections, RULES[row.check].box_iou
            if diff is not None:
                count = f"{diff.matched_at(iou)}/{diff.counted}"
                parts.append(f"{row.title} {count} boxes at IoU {iou}")
        on = "1 image" if len(self.images) == 1 else f"{len(self.images)} images"
        return f"{self.verdict} on {on}: {'; '.join(parts) or 'nothing ran'}"

    def table(self) -> tuple[tuple[str, ...], ...]:
        """Return the report as rows of cells, the header first."""
        return (HEADER, *(_cells(row) for row in self.rows))


HEADER = (
    "check",
    "ran on",
    "status",
    *(f"IoU {iou}" for iou in MATCH_IOUS),
    "lost / new",
    "borderline",
    "score diff",
    "loc diff",
    "conf diff",
    "needed",
    "note",
)


def _titled(row: Row) -> tuple[Reason, ...]:
    return tuple(Reason(reason.code, f"{row.title}: {reason.text}") for reason in row.reasons)


def _cells(row: Row) -> tuple[str, ...]:
    diffs = {diff.name: diff for diff in row.heads}
    # loc and conf; the softmaxed scores of ncnn are in verify.json
    needed = max((diffs[name].needed_atol for name in ("loc", "conf") if name in diffs), default=-1)
    return (
        row.title,
        row.ran,
        row.status.value,
        *_box_cells(row.detections),
        *(f"{diffs[name].max_abs:.1e}" if name in diffs else "" for name in ("loc", "conf")),
        f"{needed:.1e}" if needed >= 0 else "",
        row.note or (row.reasons[0].text if row.reasons else ""),
    )


def _box_cells(diff: DetectionDiff | None) -> tuple[str, ...]:
    if diff is None:
        return ("",) * (len(MATCH_IOUS) + 3)
    return (
        *(f"{count}/{diff.counted}" for count in diff.matched),
        f"{diff.lost} / {diff.new}",
        f"{diff.flicker_lost} / {diff.flicker_new}",
        f"{diff.score_max:.1e}",
    )


def json_from_report(report: VerificationReport) -> Json:
    """Return the report as plain JSON; NaN and infinities become "nan", "inf" and "-inf"."""
    plain = json_from_record(report)
    whole: Json = {
        "schema": SCHEMA,
        "verdict": report.verdict.value,
        "exit_code": report.exit_code,
        "headline": report.headline,
        "pass_rule": report.pass_rule,
        "reasons": [json_from_record(reason) for reason in report.reasons],
        "rules": {check.value: json_from_record(rule) for check, rule in RULES.items()},
    }
    return {key: _finite(value) for key, value in (whole | plain).items()}


def _finite(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


DEVICE_SCHEMA = 1
ROWS = (
    *("files", "preprocess", "postprocess", "priors"),
    *("heads", "boxes", "detection_out", "times"),
)
"""The rows that a whole result has, in order."""

_HINT = "run `selftest model --json FILE` on the board again, with this bundle's package"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One row of a self-test; numbers that are not finite are strings."""

    name: str
    status: Status
    text: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """The result of one self-test.

    Attributes:
        schema: of the JSON.
        verdict: the last line's word.
        model: the detector's name.
        made_by: which version made the package.
        arithmetic: the requested one.
        in_effect: the arithmetic that the processor and ncnn used.
        ncnn: its version.
        library: that of cpp_postprocess.
        architecture: such as "aarch64".
        features: of the processor, by ncnn's names.
        threads: for the network.
        rounds: of the times.
        files: SHA-256 of the files that were there, by name.
        rows: what was found.
    """

    schema: int
    verdict: Verdict
    model: str
    made_by: str
    arithmetic: str
    in_effect: str
    ncnn: str
    library: str
    architecture: str
    features: tuple[str, ...]
    threads: int
    rounds: int
    files: Mapping[str, str]
    rows: tuple[DeviceRow, ...]


def read_device_result(path: Path, bundle: Bundle) -> DeviceResult:
    """Read the JSON of a self-test, and check that it is of `bundle`'s model.

    Raises:
        FormatError: no such file, or the result is incomplete or contradicts itself.
        BundleError: it is the result of another model.
    """
    where = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=where, hint=_HINT) from error
    plain = parse_json(data, where=where, error=FormatError, hint=_HINT)
    if not isinstance(plain, dict) or plain.get("schema") != DEVICE_SCHEMA:
        raise FormatError(
            f"is not the result of a self-test in schema {DEVICE_SCHEMA}", where=where, hint=_HINT
        )
    result = record_from_json(DeviceResult, plain, where=where, error=FormatError)
    _check_whole(result, where)
    _check_model(result, bundle, where)
    return result


def device_rows(result: DeviceResult) -> tuple[Row, ...]:
    """Return the rows of `result`; heads are compared with this version's limits."""
    ran = f"ncnn {result.ncnn} on {result.architecture}, {result.in_effect}"
    if result.in_effect != result.arithmetic:
        ran += f" ({result.arithmetic} did not take effect)"
    return tuple(_row(row, result, ran) for row in result.rows)


def _row(row: DeviceRow, result: DeviceResult, ran: str) -> Row:
    reasons: tuple[Reason, ...] = ()
    if row.status is Status.FAIL:
        reasons = (Reason(Code.DEVICE_FAILED, row.text),)
    if row.name == "heads" and not reasons:
        reasons = _beyond_limits(row.numbers, result.in_effect)
    status = Status.FAIL if reasons else row.status
    title = f"device {result.in_effect} {row.name}"
    return Row(Check.DEVICE, title, ran, status, note=row.text, reasons=reasons)


def _beyond_limits(numbers: Mapping[str, Any], arithmetic: str) -> tuple[Reason, ...]:
    """Compare with this version's limits: those of an older package may be wider."""
    limits = {limits.arithmetic: limits.heads for limits in LIMITS}
    if arithmetic not in limits:
        return (Reason(Code.DEVICE_FAILED, f"no limits for {arithmetic}"),)
    found = []
    for name in ("loc", "conf"):
        error = numbers.get(name)
        if not isinstance(error, int | float) or not error <= limits[arithmetic]:
            text = f"{name} is off by {error} of its root mean square, not {limits[arithmetic]:g}"
            found.append(Reason(Code.DEVICE_FAILED, text))
    return tuple(found)


def _check_whole(result: DeviceResult, where: str) -> None:
    names = tuple(row.name for row in result.rows)
    if names != ROWS:
        raise FormatError(
            f"has the rows {', '.join(names) or 'none'}, not {', '.join(ROWS)}",
            where=where,
            hint=_HINT,
        )
    failed = any(row.status is Status.FAIL for row in result.rows)
    if failed == (result.verdict is Verdict.PASS):
        raise FormatError("its verdict contradicts its rows", where=where, hint=_HINT)


def _check_model(result: DeviceResult, bundle: Bundle, where: str) -> None:
    own = bundle.manifest.files
    if PARAM not in own:
        raise BundleError(
            "this bundle has no ncnn files that a board could have run",
            where=str(bundle.directory),
            hint="run `mbv3ssd-deploy to-ncnn`, and `package` again",
        )
    others = _others(result.files, {name: own[name].sha256 for name in (PARAM, BIN)})
    if others:
        raise BundleError(
            f"is the result of another model ({result.model}): {', '.join(others)} had other bytes "
            "on the board",
            where=where,
            hint="give the bundle that the package was made from, or package this one again",
        )


def _others(found: Mapping[str, str], own: Mapping[str, str]) -> Sequence[str]:
    return [name for name, sha256 in own.items() if found.get(name) != sha256]
