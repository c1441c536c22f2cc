"""Everything this package raises on purpose.

    DeployError                     exit code 3 unless another is given
     ├── SpecError                  a spec contradicts itself or the checkpoint
     ├── CheckpointError            a checkpoint cannot be read, or has no known family
     │    └── UnsafeCheckpointError (5) it would run code; nothing was run
     ├── FormatError                a file violates its format
     ├── ExportError                PyTorch or the simplifier could not make the ONNX body
     ├── UnsupportedOpError         an ONNX node has no ncnn form
     ├── BundleError                the files of a bundle do not belong together
     ├── DatasetError               a folder of images cannot be used
     ├── OutputError                a result cannot be written; the previous one is untouched
     ├── TrainingError              (1) a run failed: its loss is NaN or infinite
     ├── RuntimeUnavailableError    (4) a package or device is missing
     └── RuntimeFailedError         a runtime refused a model, crashed, or gave no output

`ValueError` and `TypeError` are for callers who misuse a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class DeployError(Exception):
    """Base of all errors that a caller may catch.

    Attributes:
        where: the file, line, layer or key that the message is about; may be empty.
        hint: what to do next, usually a command or a flag; may be empty.
        exit_code: what the command line returns for it.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class SpecError(DeployError):
    """A spec contradicts itself or the checkpoint."""


class CheckpointError(DeployError):
    """A checkpoint cannot be read, or has no known family."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint would run code. Nothing was run."""

    exit_code = 5


class FormatError(DeployError):
    """A file violates its format."""


class ExportError(DeployError):
    """PyTorch or the simplifier could not make the ONNX body."""


class UnsupportedOpError(DeployError):
    """An ONNX node has no ncnn form."""

    def __init__(self, node: str, op_type: str, reason: str, *, hint: str = "") -> None:
        super().__init__(
            f"{op_type} node {node!r} cannot become an ncnn layer: {reason}",
            hint=hint or "docs/adding.md shows how to add a lowering",
        )
        self.node = node
        self.op_type = op_type


class BundleError(DeployError):
    """The files of a bundle do not belong together."""


class DatasetError(DeployError):
    """A folder of images cannot be used."""


class OutputError(DeployError):
    """A result cannot be written. The previous one is untouched."""


class TrainingError(DeployError):
    """A training run failed: its loss is NaN or infinite."""

    exit_code = 1


class RuntimeUnavailableError(DeployError):
    """A package or device is missing."""

    exit_code = 4


class RuntimeFailedError(DeployError):
    """A runtime refused a model, crashed, or gave no output."""


def first_few(names: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Return the first names of a list for a message, and how many more there are."""
    more = len(names) - limit
    return separator.join(names[:limit]) + (f" and {more} more" if more > 0 else "")
