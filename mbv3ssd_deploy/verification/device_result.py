"""What `selftest` found on a board, as rows of the report.

`cpp_postprocess/selftest/report.cpp` writes the JSON; `docs/package.md` describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbv3ssd_deploy.bundle.bundle import BIN, PARAM, Bundle
from mbv3ssd_deploy.device.golden import LIMITS
from mbv3ssd_deploy.errors import BundleError, FormatError
from mbv3ssd_deploy.io.records import parse_json, record_from_json
from mbv3ssd_deploy.verification.report import Row, Status, Verdict
from mbv3ssd_deploy.verification.rules import Check, Code, Reason

SCHEMA = 1
ROWS = (
    *("files", "preprocess", "postprocess", "priors"),
    *("heads", "boxes", "detection_out", "times"),
)
"""The rows that a whole result has, in order."""

_HINT = "run `selftest model --json FILE` on the board again, with this bundle's package"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One row of a self-test; what is not finite among the numbers is a word."""

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
        arithmetic: what was asked for.
        in_effect: what processor and ncnn made of it.
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
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        raise FormatError(
            f"is not the result of a self-test in schema {SCHEMA}", where=where, hint=_HINT
        )
    result = record_from_json(DeviceResult, plain, where=where, error=FormatError)
    _check_whole(result, where)
    _check_model(result, bundle, where)
    return result


def device_rows(result: DeviceResult) -> tuple[Row, ...]:
    """Return the rows of `result`; heads are compared with this version's limits."""
    ran = f"ncnn {result.ncnn} on {result.architecture}, {result.in_effect}"
    if result.in_effect != result.arithmetic:
        ran += f" ({result.arithmetic} did not take place)"
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
    """The package may be older than we are, with wider limits."""
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
            hint="name the bundle that the package was made of, or package this one again",
        )


def _others(found: Mapping[str, str], own: Mapping[str, str]) -> Sequence[str]:
    return [name for name, sha256 in own.items() if found.get(name) != sha256]
