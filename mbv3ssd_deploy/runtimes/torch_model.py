"""PyTorch: the reference that every other runtime is compared with."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
import torch

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.errors import RuntimeFailedError, RuntimeUnavailableError
from mbv3ssd_deploy.runtimes.model import Output, check_batch, frozen


class TorchModel:
    """A net that runs image by image, in eval mode and full float32."""

    def __init__(self, net: torch.nn.Module, device: str = "cpu") -> None:
        """Copy `net` to `device`: "cpu", "cuda" or "cuda:1".

        Raises:
            RuntimeUnavailableError: PyTorch finds no such device.
        """
        _check_device(device)
        self._net = copy.deepcopy(net).to(device).eval()
        self._device = torch.device(device)

    def run(self, batch: F32) -> Output:
        """Return the output for `batch`, float32 (N, 3, H, W).

        Raises:
            RuntimeFailedError: PyTorch failed, because memory ran out for instance.
        """
        check_batch(batch)
        began = time.perf_counter()
        try:
            with torch.inference_mode(), _full_float32():
                heads = [self._heads(image) for image in batch]
        except RuntimeError as error:
            raise RuntimeFailedError(f"PyTorch could not run the net: {error}") from error
        loc, conf = (np.stack(arrays) for arrays in zip(*heads, strict=True))
        return Output(
            engine=f"PyTorch {torch.__version__}",
            provider=self._device.type,
            tensors=MappingProxyType({"loc": frozen(loc), "conf": frozen(conf)}),
            seconds=time.perf_counter() - began,
        )

    def _heads(self, image: F32) -> tuple[F32, F32]:
        loc, conf = self._net(torch.from_numpy(image[None].copy()).to(self._device))
        if loc.device.type != self._device.type:
            raise RuntimeError(f"it ran on {loc.device}, not on {self._device}")
        return loc[0].float().cpu().numpy(), conf[0].float().cpu().numpy()


def _check_device(device: str) -> None:
    if not device.startswith("cuda"):
        return
    index = torch.device(device).index or 0
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        build = torch.version.cuda or "none"
        raise RuntimeUnavailableError(
            f"PyTorch {torch.__version__} finds no {device} (its CUDA build: {build})",
            hint="use --device cpu, or install a PyTorch built for this machine's driver",
        )


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Switch off TF32, which rounds convolutions and matrix products on a GPU to 10 bits.

    cuDNN convolutions use it by default ("TensorFloat-32" in PyTorch's CUDA notes).
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.allow_tf32, matmul.allow_tf32 = False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
