"""The checks of body.onnx, and of the checkpoint's net on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mbv3ssd_deploy.bundle.bundle import Bundle
from mbv3ssd_deploy.checkpoint.load import LoadedDetector
from mbv3ssd_deploy.errors import RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.onnx_model import OnnxModel
from mbv3ssd_deploy.runtimes.torch_model import TorchModel
from mbv3ssd_deploy.verification.candidates import BodyCandidate
from mbv3ssd_deploy.verification.checks import Checking, Settled
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.report import Row, Status
from mbv3ssd_deploy.verification.rules import Check
from mbv3ssd_deploy.verification.runtime_check import RuntimeCheck

_TITLES = {
    Check.ONNX_CPU: "ONNX Runtime",
    Check.ONNX_CUDA: "ONNX Runtime GPU",
    Check.TORCH_CUDA: "PyTorch GPU",
}


def body_checks(
    bundle: Bundle, loaded: LoadedDetector, batch: int | None, device: str
) -> Iterator[Checking]:
    """Yield the checks of ONNX Runtime on CPU and GPU, and of PyTorch on the GPU.

    Args:
        bundle: has body.onnx, and the contract that tells how to read it.
        loaded: the checkpoint.
        batch: how many images body.onnx takes at once; None where it cannot be read.
        device: "auto", "cpu" or "cuda".

    Raises:
        RuntimeUnavailableError: `device` is "cuda" and there is none.
    """

    def checked(check: Check, load: Callable[[], Model], images: int = 1) -> Checking:
        try:
            candidate = BodyCandidate(load(), bundle.spec, images)
        except RuntimeFailedError as error:
            reasons = (Reason(Code.RUNTIME_FAILED, str(error)),)
            return Settled(Row(check, _TITLES[check], "", Status.FAIL, reasons=reasons))
        return RuntimeCheck(check, _TITLES[check], candidate, loaded.spec)

    if batch is not None:
        path, size = bundle.body_path, batch
        yield checked(Check.ONNX_CPU, lambda: OnnxModel(path), size)
        yield _on_gpu(
            Check.ONNX_CUDA,
            device,
            lambda: checked(Check.ONNX_CUDA, lambda: OnnxModel(path, "cuda"), size),
        )
    yield _on_gpu(
        Check.TORCH_CUDA,
        device,
        lambda: checked(Check.TORCH_CUDA, lambda: TorchModel(loaded.net, "cuda")),
    )


def _on_gpu(check: Check, device: str, build: Callable[[], Checking]) -> Checking:
    """Return the check, or under "auto" a row that says why there is none.

    Raises:
        RuntimeUnavailableError: `device` is "cuda", and it is not there.
    """
    if device == "cpu":
        return Settled(Row(check, _TITLES[check], "", Status.SKIPPED, "--device cpu"))
    try:
        return build()
    except RuntimeUnavailableError as error:
        if device == "cuda":
            raise
        return Settled(Row(check, _TITLES[check], "", Status.SKIPPED, error.message))
