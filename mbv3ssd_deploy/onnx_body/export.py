"""A net leaves PyTorch: one function in front of PyTorch's two ONNX exporters.

The TorchScript exporter is asked first. It honours every opset from 11 to 20, is eight times
faster, needs no further package and names nodes after modules; but PyTorch has announced its end.
The newer exporter (`dynamo=True`) needs onnxscript and knows opset 18 and later only: asked for
less it writes 18 without a word. So whatever comes back is checked before it is believed. Both give
the same ncnn network, layer for layer; when the older is gone, the newer is all that is asked.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    OnnxBody,
    body_from_model,
    metadata_from_spec,
    opset_of,
)
from mbv3ssd_deploy.onnx_body.clean import cleaned
from mbv3ssd_deploy.onnx_body.exporter_choice import ExporterChoice


@dataclass(frozen=True, slots=True)
class _Exporter:
    """One way out of PyTorch, the opsets that it honours, and the one that it is best asked for."""

    choice: ExporterChoice
    name: str
    opsets: range
    default_opset: int
    run: Callable[[torch.nn.Module, torch.Tensor, int], onnx.ModelProto]

    @property
    def opset_text(self) -> str:
        return f"{self.opsets[0]} to {self.opsets[-1]}"


def _run_torchscript(net: torch.nn.Module, sample: torch.Tensor, opset: int) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        net,
        (sample,),
        file,  # type: ignore[arg-type]  # this exporter takes a file object, the newer does not
        input_names=[INPUT],
        output_names=[LOC, CONF],
        opset_version=opset,
        dynamo=False,
    )
    return onnx.load_model_from_string(file.getvalue())


def _run_dynamo(net: torch.nn.Module, sample: torch.Tensor, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        net,
        (sample,),
        input_names=[INPUT],
        output_names=[LOC, CONF],
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


_EXPORTERS = (
    _Exporter(ExporterChoice.TORCHSCRIPT, "TorchScript", range(11, 21), 17, _run_torchscript),
    _Exporter(ExporterChoice.DYNAMO, "dynamo", range(18, 21), 18, _run_dynamo),
)
"""In the order in which they are tried; the first that gives a sound body has made it."""


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
        spec: what the net is; H, W, P and C are held against what was exported.
        opset: the version of ONNX's operator set; the model has exactly this one. None is 17 with
            the TorchScript exporter and 18, the oldest that it knows, with the newer.
        batch: N.
        exporter: which of PyTorch's exporters may make it.

    Raises:
        ExportError: PyTorch cannot export this net, cannot honour `opset`, or gave a model that is
            no body of `spec`; says what each exporter answered.
        RuntimeUnavailableError: the only exporter that could needs a package that is not here.
    """
    if batch < 1:
        raise ValueError(f"the batch is {batch}, not 1 or more")
    able = _able_exporters(ExporterChoice(exporter), opset)
    failures: list[tuple[_Exporter, Exception]] = []
    for one in able:
        try:
            return _exported(one, net, spec, opset or one.default_opset, batch)
        except FormatError as error:  # it is the net that is no body, and the other says so too
            failures.append((one, error))
            break
        except Exception as error:  # noqa: BLE001 -- PyTorch raises whatever went wrong inside
            failures.append((one, error))
    raise _export_failure(opset, failures) from failures[-1][1]


def _able_exporters(choice: ExporterChoice, opset: int | None) -> list[_Exporter]:
    allowed = [one for one in _EXPORTERS if choice in (ExporterChoice.AUTO, one.choice)]
    able = [one for one in allowed if opset is None or opset in one.opsets]
    if not able:
        raise ExportError(
            f"opset {opset} cannot be honoured: {_support_text()}",
            hint="leave out --opset: ncnn, ONNX Runtime and OpenCV read the default",
        )
    return able


def _exported(
    exporter: _Exporter, net: torch.nn.Module, spec: DetectorSpec, opset: int, batch: int
) -> OnnxBody:
    first = next(iter(net.parameters()), torch.empty(0))
    sample = torch.zeros(batch, 3, spec.input.height, spec.input.width, device=first.device)
    with warnings.catch_warnings(), torch.no_grad(), _eval_mode(net), _hushed():
        # that an exporter is to go is our matter, not the user's
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model = exporter.run(net, sample, opset)
    got = opset_of(model)
    if got != opset:
        raise ExportError(f"it wrote opset {got} where {opset} was asked for")
    metadata = {SPEC_KEY: metadata_from_spec(spec), EXPORTER_KEY: exporter.name}
    return body_from_model(cleaned(model, metadata), source="the exported model")


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Let the newer exporter not tell the user which packages it would look for operators in."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _eval_mode(net: torch.nn.Module) -> Iterator[None]:
    """Put `net` into eval mode, and every module of it back into its own afterwards.

    The exporters differ in whether they do the first, and do the second by the outermost module.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _export_failure(opset: int | None, failures: list[tuple[_Exporter, Exception]]) -> DeployError:
    """The error for all that was tried; a missing package counts where it was the last hope."""
    answers = "; ".join(f"{exporter.name} exporter: {_first_line(e)}" for exporter, e in failures)
    place = "" if opset is None else f" at opset {opset}"
    message = f"PyTorch {torch.__version__} could not export the net{place}: {answers}"
    last = failures[-1][1]
    if isinstance(last, ModuleNotFoundError) and not isinstance(failures[0][1], FormatError):
        hint = f"install it with `python -m pip install {last.name}`"
        return RuntimeUnavailableError(message, hint=hint)
    return ExportError(message, hint=f"supported opsets: {_support_text()}")


def _support_text() -> str:
    parts = [f"{e.opset_text} with the {e.name} exporter" for e in _EXPORTERS]
    return f"PyTorch's exporters honour {' and '.join(parts)}"


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, DeployError) else str(error)
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__
