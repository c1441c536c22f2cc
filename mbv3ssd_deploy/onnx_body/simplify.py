"""A simplifier that cannot hurt: onnxsim in a child process, its result compared before it is used.

Whatever goes wrong (a crash, a hang, no onnxsim, a model that is broken or gives other numbers),
the body stays as it was and the report says so.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import DeployError
from mbv3ssd_deploy.io.child import run_child, script_command
from mbv3ssd_deploy.onnx_body.body import (
    OnnxBody,
    body_from_model,
    bytes_from_body,
    cleaned,
    metadata_of,
    opset_of,
    parse_model,
)

RunOnnx = Callable[[bytes, F32], Mapping[str, F32]]
"""`run(model, inputs (N,3,H,W))` -> outputs by name; ONNX Runtime, handed in from above."""

ATOL = 1e-4
RTOL = 1e-3
"""Each output must keep within ATOL + RTOL * |before|: folding reorders float32 sums, no more."""

TIMEOUT_S = 300.0
_CHILD = script_command(str(Path(__file__).with_name("simplify_child.py")))


@dataclass(frozen=True, slots=True)
class SimplifyReport:
    """The outcome of a simplification.

    Attributes:
        simplifier: package and version.
        applied: whether the simplified graph is the one that was returned.
        reason: why not; empty where it was applied.
        ops_before: number of nodes by op type; `ops_after` those of the body that was returned.
        bytes_before: size of the ONNX file; `bytes_after` that of the body that was returned.
        worst_difference: largest |after - before| of any output on the sample; None where no
            simplified graph could be run.
        seconds: wall time of the whole step.
    """

    simplifier: str
    applied: bool
    reason: str
    ops_before: Mapping[str, int]
    ops_after: Mapping[str, int]
    bytes_before: int
    bytes_after: int
    worst_difference: float | None
    seconds: float

    @property
    def nodes_before(self) -> int:
        """The number of nodes of the exported body."""
        return sum(self.ops_before.values())

    @property
    def nodes_after(self) -> int:
        """The number of nodes of the body that was returned."""
        return sum(self.ops_after.values())

    @property
    def outcome(self) -> str:
        """One line for a record: the simplifier, and why it was not used where it was not."""
        return self.simplifier if self.applied else f"{self.simplifier}, not used: {self.reason}"


class _NotUsed(Exception):  # noqa: N818 -- it says what happened, and no error leaves this file
    """Why the simplified graph is not used."""

    def __init__(self, reason: str, worst: float | None = None) -> None:
        super().__init__(reason)
        self.worst = worst


def simplify_body(
    body: OnnxBody,
    sample: F32,
    run: RunOnnx,
    *,
    timeout_s: float = TIMEOUT_S,
    child: Sequence[str] = _CHILD,
) -> tuple[OnnxBody, SimplifyReport]:
    """Return `body` simplified by onnxsim, or as it was, and the report that says which.

    Args:
        body: the exported body.
        sample: real input, float32 (N,3,H,W), on which both graphs must agree.
        run: runs an ONNX model.
        timeout_s: how long the simplifier may take.
        child: the command that is called with the paths IN and OUT.

    Raises:
        DeployError: `run` cannot run the body as it came in.
    """
    if sample.shape != body.input_shape:
        raise ValueError(f"the sample is {sample.shape}, the body needs {body.input_shape}")
    began = time.perf_counter()
    before = after = bytes_from_body(body)
    expected = run(before, sample)
    result, reason, worst = body, "", None
    try:
        simplified = _simplified(body, before, child, timeout_s)
        data = bytes_from_body(simplified)
        worst = _worst_difference(expected, data, sample, run)
        result, after = simplified, data
    except _NotUsed as refusal:
        reason, worst = str(refusal), refusal.worst
    return result, SimplifyReport(
        simplifier=_simplifier(),
        applied=not reason,
        reason=reason,
        ops_before=op_counts(body),
        ops_after=op_counts(result),
        bytes_before=len(before),
        bytes_after=len(after),
        worst_difference=worst,
        seconds=time.perf_counter() - began,
    )


def op_counts(body: OnnxBody) -> Mapping[str, int]:
    """Return how many nodes of each op type there are, in alphabetical order."""
    counts = Counter(node.op_type for node in body.model.graph.node)
    return MappingProxyType(dict(sorted(counts.items())))


def _simplified(body: OnnxBody, data: bytes, child: Sequence[str], timeout_s: float) -> OnnxBody:
    with tempfile.TemporaryDirectory(prefix="mbv3ssd-deploy-") as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        source.write_bytes(data)
        try:
            result = run_child((*child, str(source), str(target)), timeout_s=timeout_s)
        except OSError as error:
            raise _NotUsed(f"it cannot be started: {error}") from error
        if result.returncode != 0:
            log = f": {result.last_line}" if result.last_line else ""
            raise _NotUsed(f"it {result.ending}{log}")
        try:
            model = parse_model(target.read_bytes())
        except (OSError, DeployError) as error:
            raise _NotUsed("it left no readable model") from error
    if opset_of(model) != body.opset:
        raise _NotUsed(f"it changed the opset from {body.opset} to {opset_of(model)}")
    try:
        simplified = body_from_model(cleaned(model, metadata_of(body.model)))
    except DeployError as error:
        raise _NotUsed(f"its model is broken: {error.message}") from error
    if simplified.batch != body.batch:
        raise _NotUsed(f"it changed the batch from {body.batch} to {simplified.batch}")
    return simplified


def _worst_difference(
    expected: Mapping[str, F32], simplified: bytes, sample: F32, run: RunOnnx
) -> float:
    """Return the largest difference of any output, or raise where it is beyond the tolerance."""
    try:
        actual = run(simplified, sample)
    except DeployError as error:
        raise _NotUsed(f"its model does not run: {error.message}") from error
    worst, changed = 0.0, []
    for name, reference in expected.items():
        same = np.isclose(actual[name], reference, rtol=RTOL, atol=ATOL, equal_nan=True)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            gap = np.abs(actual[name] - reference)
        worst = max(worst, float(np.nanmax(gap, initial=0.0)))
        if not same.all():
            changed.append(f"{name} in {np.count_nonzero(~same)} of {same.size} numbers")
    if changed:
        raise _NotUsed(f"its model gives other results: {', '.join(changed)}", worst)
    return worst


def _simplifier() -> str:
    try:
        return f"onnxsim {importlib.metadata.version('onnxsim')}"
    except importlib.metadata.PackageNotFoundError:
        return "onnxsim (not installed)"
