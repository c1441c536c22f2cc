"""lower_body: a whole ONNX body becomes an ncnn graph, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import onnx

from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError
from mbv3ssd_deploy.ncnn_graph.edit import with_blobs_renamed
from mbv3ssd_deploy.ncnn_graph.graph import INPUT, NcnnGraph
from mbv3ssd_deploy.ncnn_graph.lower import elementwise, linear, shape, windows
from mbv3ssd_deploy.ncnn_graph.lower.scope import OnnxNode, Scope
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes
from mbv3ssd_deploy.onnx_body.body import POST_PROCESSING, OnnxBody

_EXPORT_HINT: Final = "export the body with mbv3ssd-deploy export"

Lowering = Callable[[OnnxNode, Scope], None]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "Add": elementwise.lower_binary,
        "AveragePool": windows.lower_pool,
        "BatchNormalization": linear.lower_batch_normalization,
        "Cast": shape.lower_cast,
        "Clip": elementwise.lower_clip,
        "Concat": shape.lower_concat,
        "Conv": windows.lower_conv,
        "Div": elementwise.lower_binary,
        "Dropout": shape.lower_dropout,
        "Flatten": shape.lower_reshape,
        "Gemm": linear.lower_gemm,
        "GlobalAveragePool": windows.lower_global_pool,
        "GlobalMaxPool": windows.lower_global_pool,
        "HardSigmoid": elementwise.lower_hard_sigmoid,
        "HardSwish": elementwise.lower_activation,
        "Identity": shape.lower_identity,
        "LeakyRelu": elementwise.lower_activation,
        "MatMul": linear.lower_matmul,
        "Max": elementwise.lower_binary,
        "MaxPool": windows.lower_pool,
        "Min": elementwise.lower_binary,
        "Mul": elementwise.lower_binary,
        "Pow": elementwise.lower_pow,
        "ReduceL2": linear.lower_reduce_l2,
        "ReduceMean": windows.lower_reduce_mean,
        "Relu": elementwise.lower_activation,
        "Reshape": shape.lower_reshape,
        "Sigmoid": elementwise.lower_activation,
        "Slice": shape.lower_slice,
        "Softmax": elementwise.lower_softmax,
        "Split": shape.lower_split,
        "Squeeze": shape.lower_reshape,
        "Sub": elementwise.lower_binary,
        "Transpose": shape.lower_transpose,
        "Unsqueeze": shape.lower_reshape,
    }
)
"""Which function lowers which ONNX operator, in the order of the alphabet."""


def lower_body(body: OnnxBody) -> NcnnGraph:
    """Return the ncnn graph of `body`, from blob `input` to blobs `loc` and `conf`.

    `loc` has w = 4, h = P and `conf` w = C, h = P: the ONNX outputs without their batch axis.
    Weights are FLOAT32. The graph holds dead layers and unfused ones; `fuse_graph` comes next.

    Raises:
        UnsupportedOpError: operators without a lowering, or used in a way ncnn cannot follow; the
            message names all of them.
        SpecError: a batch other than 1, an open input shape, or outputs that are missing.
    """
    return lower_model(body.model, {name: name for name in body.output_names})[0]


def lower_model(
    model: onnx.ModelProto, outputs: Mapping[str, str]
) -> tuple[NcnnGraph, Mapping[str, str]]:
    """Return the ncnn graph of any ONNX model with one input, and the blob of each ONNX tensor.

    Fusions keep the meaning of every blob name that survives them, so the map also serves a fused
    graph. `outputs` is tensor -> blob name. Errors are those of `lower_body`.
    """
    scope = Scope(model, outputs)
    missing = [name for name in outputs if name not in scope.output_names]
    if missing:
        has = ", ".join(scope.output_names)
        raise SpecError(
            f"the ONNX model has no output {' and no '.join(map(repr, missing))}; it has {has}",
            hint=_EXPORT_HINT,
        )
    for step in (_unknown_operators, _unknown_attributes, _lower_nodes, _without_blob, _misshapen):
        _raise_all(list(step(scope)))
    return _with_output_names(scope), scope.blob_of


def _unknown_operators(scope: Scope) -> Iterator[UnsupportedOpError]:
    for node in scope.nodes:
        if node.op_type in LOWERINGS:
            continue
        if node.op_type in POST_PROCESSING:
            reason = "this ONNX file still holds the post-processing"
            yield node.refusal(reason, hint=_EXPORT_HINT)
        else:
            yield node.refusal("there is no lowering for this operator")


def _unknown_attributes(scope: Scope) -> Iterator[UnsupportedOpError]:
    """Refuse nodes with an attribute that ONNX does not know, so that its effect is unknown."""
    for node in scope.nodes:
        known = onnx.defs.get_schema(node.op_type, scope.opset).attributes
        unknown = ", ".join(sorted(set(node.attributes) - set(known)))
        if unknown:
            place = f"in opset {scope.opset}"
            yield node.refusal(f"{place} the operator has no attribute {unknown}")


def _lower_nodes(scope: Scope) -> Iterator[UnsupportedOpError]:
    """Lower every node; what depends on a refused one is passed over, and not refused again."""
    for node in scope.nodes:
        if not all(tensor in scope.blob_of for tensor in scope.computed_inputs(node)):
            continue
        try:
            LOWERINGS[node.op_type](node, scope)
        except UnsupportedOpError as error:
            yield error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # numbers that contradict each other, which ONNX's checker lets pass
            yield node.refusal(f"its attributes or constants do not fit together ({error})")


def _without_blob(scope: Scope) -> Iterator[UnsupportedOpError]:
    """Refuse what depends on a tensor that no layer makes, such as a Dropout's mask."""
    made_by = {tensor: node for node in scope.nodes for tensor in node.outputs}
    for output in scope.outputs:
        tensor, reader = output, None
        while tensor not in scope.blob_of and tensor in made_by:
            reader = made_by[tensor]
            absent = [t for t in scope.computed_inputs(reader) if t not in scope.blob_of]
            if not absent:
                break
            tensor = absent[0]
        if reader is not None:
            yield reader.refusal(f"{tensor!r} has no ncnn form")
        elif tensor not in scope.blob_of:
            raise SpecError(f"the output {output!r} does not depend on the input")
        elif scope.blob_of[output] == INPUT:
            raise SpecError(f"the output {output!r} is the input itself")


def _misshapen(scope: Scope) -> Iterator[UnsupportedOpError]:
    """Refuse the nodes whose blobs have other shapes than their tensors; see `Scope`'s rule."""
    found = infer_shapes(NcnnGraph(tuple(scope.layers))).blobs
    for node in scope.nodes:
        for tensor in node.outputs:
            made = found.get(scope.blob_of.get(tensor, ""))
            wanted = scope.shapes.get(tensor, ())[1:]
            if made is not None and tensor in scope.shapes and made != wanted:
                yield node.refusal(f"ncnn makes {tensor!r} {list(made)}, and ONNX {list(wanted)}")


def _raise_all(refused: list[UnsupportedOpError]) -> None:
    """Raise one error that names all of `refused`, with the hint of the first."""
    if not refused:
        return
    first, *others = refused
    listing = "".join(f"\n  also: {error.message}" for error in others)
    reason = first.message.partition("cannot become an ncnn layer: ")[2]
    raise UnsupportedOpError(first.node, first.op_type, reason + listing, hint=first.hint)


def _with_output_names(scope: Scope) -> NcnnGraph:
    """Return the graph, its output blobs renamed where an Identity had hidden their name."""
    blobs = {scope.blob_of[tensor]: blob for tensor, blob in scope.outputs.items()}
    if len(blobs) < len(scope.outputs):
        raise SpecError("two outputs of the ONNX model are one and the same tensor")
    scope.blob_of.update({t: blobs.get(blob, blob) for t, blob in scope.blob_of.items()})
    return with_blobs_renamed(NcnnGraph(tuple(scope.layers)), blobs)
