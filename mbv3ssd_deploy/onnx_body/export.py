"""A net leaves PyTorch: one function in front of PyTorch's two ONNX exporters.

The TorchScript exporter is tried first. It honours every opset from 11 to 20, is eight times
faster, needs no further package and names nodes after modules; but PyTorch has announced its end.
The newer exporter (`dynamo=True`) needs onnxscript and knows opset 18 and later only: for less
it silently writes 18. So every result is checked before it is used. Both give the same ncnn
network, layer for layer; when the older is gone, the newer alone is enough.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import DeployError, ExportError, FormatError, RuntimeUnavailableError
from mbv3ssd_deploy.onnx_body.body import (
    CONF,
    EXPORTER_KEY,
    INPUT,
    LOC,
    SPEC_KEY,
    ExporterChoice,
    OnnxBody,
    body_from_model,
    cleaned,
    metadata_from_spec,
    opset_of,
)


@dataclass(frozen=True, slots=True)
class _Exporter:
    """One way out of PyTorch, the opsets that it honours, and the one that suits it best."""

    choice: ExporterChoice
    name: str
    opsets: range
    default_opset: int


_EXPORTERS = (
    _Exporter(ExporterChoice.TORCHSCRIPT, "TorchScript", range(11, 21), 17),
    _Exporter(ExporterChoice.DYNAMO, "dynamo", range(18, 21), 18),
)
"""In the order in which they are tried; the first sound body is used."""

_SUPPORT = "PyTorch's exporters honour " + " and ".join(
    f"{e.opsets[0]} to {e.opsets[-1]} with the {e.name} exporter" for e in _EXPORTERS
)


def export_body(
    net: torch.nn.Module,
    spec: DetectorSpec,
    *,
    opset: int | None = None,
    batch: int = 1,
    exporter: ExporterChoice = ExporterChoice.AUTO,
) -> OnnxBody:
    """Return `net` as an ONNX body: raw heads, fixed sizes, the spec in its metadata.

    Args:
        net: float32 [N,3,H,W] -> (loc [N,P,4] offsets, conf [N,P,C] logits); it is exported as in
            eval mode, and left as it was.
        spec: describes the net; H, W, P and C are compared with the exported sizes.
        opset: the version of ONNX's operator set; the model has exactly this one. None is 17 with
            the TorchScript exporter and 18, the oldest that it knows, with the newer.
        batch: N.
        exporter: which of PyTorch's exporters may make it.

    Raises:
        ExportError: PyTorch cannot export this net, cannot honour `opset`, or gave a model that is
            not a body of `spec`; the message holds each exporter's answer.
        RuntimeUnavailableError: the only exporter that could needs a package that is missing.
    """
    if batch < 1:
        raise ValueError(f"the batch is {batch}, not 1 or more")
    choice = ExporterChoice(exporter)
    allowed = [one for one in _EXPORTERS if choice in (ExporterChoice.AUTO, one.choice)]
    able = [one for one in allowed if opset is None or opset in one.opsets]
    if not able:
        raise ExportError(
            f"opset {opset} cannot be honoured: {_SUPPORT}",
            hint="leave out --opset: ncnn, ONNX Runtime and OpenCV read the default",
        )
    failures: list[tuple[_Exporter, Exception]] = []
    for one in able:
        try:
            return _exported(one, net, spec, opset or one.default_opset, batch)
        except FormatError as error:  # the net is at fault, and the other would say so too
            failures.append((one, error))
            break
        except Exception as error:  # noqa: BLE001 -- PyTorch raises whatever went wrong inside
            failures.append((one, error))
    raise _export_failure(opset, failures) from failures[-1][1]


def _exported(
    exporter: _Exporter, net: torch.nn.Module, spec: DetectorSpec, opset: int, batch: int
) -> OnnxBody:
    first = next(iter(net.parameters()), torch.empty(0))
    sample = torch.zeros(batch, 3, spec.input.height, spec.input.width, device=first.device)
    with _prepared(net):
        model = _run(exporter.choice, net, sample, opset)
    got = opset_of(model)
    if got != opset:
        raise ExportError(f"it wrote opset {got} where {opset} was requested")
    metadata = {SPEC_KEY: metadata_from_spec(spec), EXPORTER_KEY: exporter.name}
    return body_from_model(cleaned(model, metadata), source="the exported model")


def _run(
    choice: ExporterChoice, net: torch.nn.Module, sample: torch.Tensor, opset: int
) -> onnx.ModelProto:
    options: dict[str, Any] = {"input_names": [INPUT], "output_names": [LOC, CONF]}
    options["opset_version"] = opset
    if choice is ExporterChoice.TORCHSCRIPT:
        file = io.BytesIO()
        torch.onnx.export(net, (sample,), file, dynamo=False, **options)  # type: ignore[arg-type]
        return onnx.load_model_from_string(file.getvalue())
    program = torch.onnx.export(net, (sample,), dynamo=True, verbose=False, **options)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


@contextlib.contextmanager
def _prepared(net: torch.nn.Module) -> Iterator[None]:
    """Put `net` into eval mode and hide notes on packages and announced ends; undo it afterwards.

    The exporters differ in whether they do the first, and undo it by the outermost module.
    """
    modes = [(module, module.training) for module in net.modules()]
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        net.eval()
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
        for module, training in modes:
            module.training = training


def _export_failure(opset: int | None, failures: list[tuple[_Exporter, Exception]]) -> DeployError:
    """Return the error for all attempts; a missing package counts where it was the last hope."""
    answers = "; ".join(f"{exporter.name} exporter: {_first_line(e)}" for exporter, e in failures)
    place = "" if opset is None else f" at opset {opset}"
    message = f"PyTorch {torch.__version__} could not export the net{place}: {answers}"
    last = failures[-1][1]
    if isinstance(last, ModuleNotFoundError):
        hint = f"install it with `python -m pip install {last.name}`"
        return RuntimeUnavailableError(message, hint=hint)
    return ExportError(message, hint=f"supported opsets: {_SUPPORT}")


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, DeployError) else str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)
