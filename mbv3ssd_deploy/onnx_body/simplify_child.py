"""The child of `simplify.py`: `simplify_child.py IN OUT` reads, simplifies and writes one model.

It imports nothing of this package, so that it starts fast.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

# onnxsim would load PyTorch (seconds, 180 MB) and not use it here; this hides the module
sys.modules["torch"] = None  # type: ignore[assignment]
try:
    import onnxsim
except ImportError:
    del sys.modules["torch"]
    import onnxsim

if __name__ == "__main__":
    simplified, agrees = onnxsim.simplify(onnx.load(sys.argv[1]))
    if not agrees:
        raise RuntimeError("onnxsim's own check of its result failed")
    Path(sys.argv[2]).write_bytes(simplified.SerializeToString(deterministic=True))
