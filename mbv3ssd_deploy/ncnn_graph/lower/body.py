"""lower_body: a whole ONNX body becomes an ncnn graph, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import onnx

from mbv3ssd_deploy.errors import SpecError, UnsupportedOpError
from mbv3ssd_deploy.ncnn_graph.edit import with_blobs_renamed
from mbv3ssd_deploy.ncnn_graph.graph import INPUT, NcnnGraph
from mbv3ssd_deploy.ncnn_graph.lower.elementwise import (
    lower_binary,
    lower_clip,
    lower_hard_sigmoid,
    lower_hard_swish,
    lower_leaky_relu,
    lower_pow,
    lower_relu,
    lower_sigmoid,
    lower_softmax,
)
from mbv3ssd_deploy.ncnn_graph.lower.linear import (
    lower_batch_normalization,
    lower_gemm,
    lower_matmul,
    lower_reduce_l2,
)
from mbv3ssd_deploy.ncnn_graph.lower.model import OnnxFacts, OnnxNode, facts_of_model
from mbv3ssd_deploy.ncnn_graph.lower.scope import Scope
from mbv3ssd_deploy.ncnn_graph.lower.shape import (
    lower_cast,
    lower_concat,
    lower_dropout,
    lower_identity,
    lower_reshape,
    lower_slice,
    lower_split,
    lower_transpose,
)
from mbv3ssd_deploy.ncnn_graph.lower.windows import (
    lower_average_pool,
    lower_conv,
    lower_global_average_pool,
    lower_global_max_pool,
    lower_max_pool,
    lower_reduce_mean,
)
from mbv3ssd_deploy.ncnn_graph.shapes import infer_shapes
from mbv3ssd_deploy.onnx_body.body import POST_PROCESSING, OnnxBody

Lowering = Callable[[OnnxNode, Scope], None]

LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "Add": lower_binary,
        "AveragePool": lower_average_pool,
        "BatchNormalization": lower_batch_normalization,
        "Cast": lower_cast,
        "Clip": lower_clip,
        "Concat": lower_concat,
        "Conv": lower_conv,
        "Div": lower_binary,
        "Dropout": lower_dropout,
        "Flatten": lower_reshape,
        "Gemm": lower_gemm,
        "GlobalAveragePool": lower_global_average_pool,
        "GlobalMaxPool": lower_global_max_pool,
        "HardSigmoid": lower_hard_sigmoid,
        "HardSwish": lower_hard_swish,
        "Identity": lower_identity,
        "LeakyRelu": lower_leaky_relu,
        "MatMul": lower_matmul,
        "Max": lower_binary,
        "MaxPool": lower_max_pool,
        "Min": lower_binary,
        "Mul": lower_binary,
        "Pow": lower_pow,
        "ReduceL2": lower_reduce_l2,
        "ReduceMean": lower_reduce_mean,
        "Relu": lower_relu,
        "Reshape": lower_reshape,
        "Sigmoid": lower_sigmoid,
        "Slice": lower_slice,
        "Softmax": lower_softmax,
        "Split": lower_split,
        "Squeeze": lower_reshape,
        "Sub": lower_binary,
        "Transpose": lower_transpose,
        "Unsqueeze": lower_reshape,
    }
)
"""Which function lowers which ONNX operator, in the order of the alphabet."""


@dataclass(frozen=True, slots=True)
class LoweredBody:
    """An ncnn graph and where each ONNX tensor went.

    Attributes:
        graph: not fused yet; a blob may have several consumers.
        blob_of: ONNX tensor -> ncnn blob of the same numbers. Fusions keep the meaning of every
            blob name that survives them, so this map also serves a fused graph.
    """

    graph: NcnnGraph
    blob_of: Mapping[str, str]


def lower_body(body: OnnxBody) -> NcnnGraph:
    """Return the ncnn graph of `body`, from blob `input` to blobs `loc` and `conf`.

    `loc` has w = 4, h = P and `conf` w = C, h = P: the ONNX outputs without their batch axis.
    Weights are FLOAT32. The graph holds dead layers and unfused ones; `fuse_graph` comes next.

    Raises:
        UnsupportedOpError: operators without a lowering, or used in a way ncnn cannot follow; the
            message names all of them.
        SpecError: a batch other than 1, an open input shape, or outputs that are missing.
    """
    return lower_model(body.model, {name: name for name in body.output_names}).graph


def lower_model(model: onnx.ModelProto, outputs: Mapping[str, str]) -> LoweredBody:
    """Return the ncnn graph of any ONNX model with one input; `outputs` is tensor -> blob name.

    Raises:
        UnsupportedOpError, SpecError: as `lower_body`.
    """
    facts = facts_of_model(model)
    missing = [name for name in outputs if name not in facts.output_names]
    if missing:
        has = ", ".join(facts.output_names)
        raise SpecError(
            f"the ONNX model has no output {' and no '.join(map(repr, missing))}; it has {has}",
            hint="export the body with mbv3ssd-deploy export",
        )
    scope = Scope(facts, outputs)
    _raise_all(_unknown_operators(facts))
    _raise_all(_unknown_attributes(facts))
    _raise_all(_lower_nodes(facts, scope))
    _raise_all(_without_blob(facts, scope, outputs))
    _raise_all(_misshapen(facts, scope))
    graph = _with_output_names(scope, outputs)
    return LoweredBody(graph, MappingProxyType(scope.blob_of))


def _unknown_operators(facts: OnnxFacts) -> list[UnsupportedOpError]:
    hint = "export the body with mbv3ssd-deploy export"
    return [
        node.refusal("this ONNX file still holds the post-processing", hint=hint)
        if node.op_type in POST_PROCESSING
        else node.refusal("there is no lowering for this operator")
        for node in facts.nodes
        if node.op_type not in LOWERINGS
    ]


def _unknown_attributes(facts: OnnxFacts) -> list[UnsupportedOpError]:
    """Refuse nodes with an attribute that ONNX does not know, so that its effect is unknown."""
    refused = []
    for node in facts.nodes:
        known = onnx.defs.get_schema(node.op_type, facts.opset).attributes
        unknown = ", ".join(sorted(set(node.attributes) - set(known)))
        if unknown:
            place = f"in opset {facts.opset}"
            refused.append(node.refusal(f"{place} the operator has no attribute {unknown}"))
    return refused


def _lower_nodes(facts: OnnxFacts, scope: Scope) -> list[UnsupportedOpError]:
    """Lower every node; what depends on a refused one is passed over, and not refused again."""
    refused = []
    for node in facts.nodes:
        reads = [t for t in node.inputs if t and scope.constant(t) is None]
        if all(tensor in scope.blob_of for tensor in reads):
            try:
                LOWERINGS[node.op_type](node, scope)
            except UnsupportedOpError as error:
                refused.append(error)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                # numbers that contradict each other, which ONNX's checker lets pass
                reason = f"its attributes or constants do not fit together ({error})"
                refused.append(node.refusal(reason))
    return refused


def _without_blob(
    facts: OnnxFacts, scope: Scope, outputs: Mapping[str, str]
) -> list[UnsupportedOpError]:
    """Refuse what depends on a tensor that no layer makes, such as a Dropout's mask."""
    made_by = {tensor: node for node in facts.nodes for tensor in node.outputs}
    refused = []
    for output in outputs:
        tensor, reader = output, None
        while tensor not in scope.blob_of and tensor in made_by:
            before = [t for t in made_by[tensor].inputs if t and scope.constant(t) is None]
            absent = [t for t in before if t not in scope.blob_of]
            reader = made_by[tensor]
            if not absent:
                break
            tensor = absent[0]
        if reader is not None:
            refused.append(reader.refusal(f"{tensor!r} has no ncnn form"))
        elif tensor not in scope.blob_of:
            raise SpecError(f"the output {output!r} does not depend on the input")
        elif scope.blob_of[output] == INPUT:
            raise SpecError(f"the output {output!r} is the input itself")
    return refused


def _misshapen(facts: OnnxFacts, scope: Scope) -> list[UnsupportedOpError]:
    """Refuse the nodes whose blobs have other shapes than their tensors; see `Scope`'s rule."""
    found = infer_shapes(NcnnGraph(tuple(scope.layers))).blobs
    return [
        node.refusal(f"ncnn makes {tensor!r} {list(made)}, and ONNX {list(wanted)}")
        for node in facts.nodes
        for tensor in node.outputs
        if tensor in scope.blob_of and tensor in facts.shapes
        for wanted, made in [(facts.shapes[tensor][1:], found.get(scope.blob_of[tensor]))]
        if made is not None and made != wanted
    ]


def _raise_all(refused: list[UnsupportedOpError]) -> None:
    """Raise one error that names all of `refused`, with the hint of the first."""
    if not refused:
        return
    first, *others = refused
    if not others:
        raise first
    listing = "".join(f"\n  also: {error.message}" for error in others)
    reason = first.message.partition("cannot become an ncnn layer: ")[2]
    raise UnsupportedOpError(first.node, first.op_type, reason + listing, hint=first.hint)


def _with_output_names(scope: Scope, outputs: Mapping[str, str]) -> NcnnGraph:
    """Return the graph, the blobs of `outputs` renamed where an Identity had hidden their name."""
    if len({scope.blob_of[tensor] for tensor in outputs}) < len(outputs):
        raise SpecError("two outputs of the ONNX model are one and the same tensor")
    renamed = {scope.blob_of[t]: blob for t, blob in outputs.items() if scope.blob_of[t] != blob}
    scope.blob_of.update({t: renamed.get(blob, blob) for t, blob in scope.blob_of.items()})
    return with_blobs_renamed(NcnnGraph(tuple(scope.layers)), renamed)
