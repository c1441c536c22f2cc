"""ONNX Runtime on the CPU or a CUDA GPU; the provider is read back from the session."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.runtimes.model import Output, check_batch, frozen

_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # without it convolutions round to TF32, about 1e-3 off PyTorch's float32
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_ERRORS_ONLY = 3
_CUDA_HINT = (
    "install the GPU build in place of the CPU one (`python -m pip uninstall onnxruntime`, then "
    "`python -m pip install onnxruntime-gpu`) for this machine's CUDA version, or use --device cpu"
)


class OnnxModel:
    """A session on one model; any number of images runs, in steps of the model's batch size."""

    def __init__(self, model: Path | bytes, device: str = "cpu", *, threads: int = 0) -> None:
        """Load `model`, a file or its bytes, with all graph optimisations.

        Args:
            model: an ONNX model with one input (N,3,H,W).
            device: "cpu" or "cuda".
            threads: per operator; 0 is ONNX Runtime's default.

        Raises:
            RuntimeUnavailableError: CUDA does not run on this machine.
            RuntimeFailedError: ONNX Runtime refuses the model.
        """
        if device not in _PROVIDERS:
            raise ValueError(f"the device is {device!r}, not one of {', '.join(_PROVIDERS)}")
        self._where = "<bytes>" if isinstance(model, bytes) else str(model)
        provider, options = _PROVIDERS[device]
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise RuntimeUnavailableError(
                f"ONNX Runtime {onnxruntime.__version__} has no {provider}; "
                f"it has {', '.join(available)}",
                hint=_CUDA_HINT,
            )
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(
                source, _session_options(threads), providers=[(provider, options)]
            )
        except Exception as error:
            raise self._failure("refuses the model", error) from error
        check_provider(provider, self._session.get_providers())
        self._session.disable_fallback()  # a provider that fails must fail, not become the CPU
        self._provider = provider
        self._input = self._session.get_inputs()[0]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, batch: F32) -> Output:
        """Return every output of the model by name, for `batch` (N, 3, H, W).

        Raises:
            RuntimeFailedError: ONNX Runtime failed, or the input has the wrong size.
        """
        check_batch(batch)
        steps = self._steps(batch)
        began = time.perf_counter()
        try:
            parts = [self._session.run(self._outputs, {self._input.name: s}) for s in steps]
        except Exception as error:
            raise self._failure("could not run the model", error) from error
        seconds = time.perf_counter() - began
        arrays = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        count = len(batch)
        tensors = {n: frozen(a[:count]) for n, a in zip(self._outputs, arrays, strict=True)}
        return Output(
            engine=f"ONNX Runtime {onnxruntime.__version__}",
            provider=self._provider,
            tensors=MappingProxyType(tensors),
            seconds=seconds,
        )

    def _steps(self, batch: F32) -> list[F32]:
        """Split `batch` by the model's batch size, padding with the last image."""
        size = self._input.shape[0]
        size = size if isinstance(size, int) else len(batch)
        missing = -len(batch) % size
        full = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        return [full[i : i + size] for i in range(0, len(full), size)]

    def _failure(self, what: str, error: Exception) -> RuntimeFailedError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return RuntimeFailedError(f"ONNX Runtime {what}: {lines[0]}", where=self._where)


def check_provider(wanted: str, running: Sequence[str]) -> None:
    """Check that a session runs on `wanted`, by the list that it gives after its creation.

    ONNX Runtime lists CUDA as available and then quietly runs on the CPU when a CUDA library is
    missing or of another version.

    Raises:
        RuntimeUnavailableError: it runs on something else.
    """
    if not running or running[0] != wanted:
        raise RuntimeUnavailableError(
            f"{wanted} was asked for, but ONNX Runtime runs on {', '.join(running) or 'nothing'}",
            hint=_CUDA_HINT,
        )


def _session_options(threads: int) -> Any:  # noqa: ANN401 -- the package has no types
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    return options
