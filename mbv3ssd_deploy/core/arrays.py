"""Names for the arrays that the rooms hand each other."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["F32", "F64", "I64", "U8", "Bools", "Real"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

Real = TypeVar("Real", bound=np.floating[Any])
"""The float type of an array whose function answers in the same type."""
