"""The child of `simplify.py`: `simplify_child.py IN OUT` reads, simplifies and writes one model.

It stands alone, without an import from this package, so that it starts fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx


def main(source: str, target: str) -> None:
    """Simplify the ONNX file `source` into the file `target`.

    Raises:
        Exception: whatever onnxsim raises; the parent reads the end of the traceback.
    """
    simplified, agrees = _onnxsim().simplify(onnx.load(source))
    if not agrees:
        raise RuntimeError("onnxsim's own check of its result failed")
    Path(target).write_bytes(simplified.SerializeToString(deterministic=True))


def _onnxsim() -> Any:  # noqa: ANN401 -- the package has no types
    """Import onnxsim without PyTorch: it would load it (seconds, 180 MB) and not use it here."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to hide a module
    try:
        import onnxsim  # noqa: PLC0415
    except ImportError:
        del sys.modules["torch"]
        import onnxsim  # noqa: PLC0415
    return onnxsim


if __name__ == "__main__":
    main(*sys.argv[1:])
