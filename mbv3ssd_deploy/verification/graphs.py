"""The shipped ncnn graph against the one that lowering body.onnx again gives, weights apart.

Images cannot prove a graph: an activation that clips too late, or a blob that a phone rounds to 16
bits, shows on no picture of a desktop. So every layer must be the one that body.onnx gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from mbv3ssd_deploy.bundle.bundle import MANIFEST
from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Param, Storage
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.priors import PriorPlan
from mbv3ssd_deploy.ncnn_graph.weight_bin import with_storage
from mbv3ssd_deploy.verification.reasons import Code, Reason

_NAMED = 3
"""How many differences are named; a file of another model would name them all."""


def graph_reasons(shipped: NcnnGraph, again: NcnnGraph) -> tuple[Reason, ...]:
    """Return a reason that names the first layers of `shipped` that are not those of `again`.

    Type, wiring, every parameter and the order count; weights are the matter of `twins`.

    Args:
        shipped: read from the bundle's files.
        again: what lowering body.onnx gives today, as it would be read from its file.
    """
    found = tuple(_differences(shipped, again))
    if not found:
        return ()
    text = (
        f"not the graph that body.onnx gives: {_listed(found)}; if another version of this tool "
        "made it, run `mbv3ssd-deploy to-ncnn` again"
    )
    return (Reason(Code.GRAPH_DIFFERS, text),)


def storage_reasons(shipped: NcnnGraph, again: NcnnGraph, record: NcnnRecord) -> tuple[Reason, ...]:
    """Return a reason where weights of `shipped` are stored otherwise than `record` says.

    Args:
        shipped: read from the bundle's files.
        again: what lowering body.onnx gives today, weights at full precision.
        record: of detector.json.
    """
    if record.storage not in (Storage.FLOAT32, Storage.FLOAT16):
        text = f"storage is {record.storage!r} in {MANIFEST}; this tool writes float32 or float16"
        return (Reason(Code.RECORD_DIFFERS, text),)
    # not every blob of a float16 file holds halves: biases do not, nor do numbers beyond 65504
    expected = _storages(with_storage(again, Storage(record.storage)))
    found = [
        f"the {role} of {name!r} is stored as {storage}"
        for (name, role), storage in _storages(shipped).items()
        if expected.get((name, role), storage) is not storage
    ]
    if not found:
        return ()
    text = f"storage is {record.storage} in {MANIFEST}, but {_listed(found)}"
    return (Reason(Code.RECORD_DIFFERS, text),)


def carrier_reasons(record: NcnnRecord, plan: PriorPlan | None) -> tuple[Reason, ...]:
    """Return a reason where a level's priors do not travel as `record` says.

    Args:
        record: of detector.json.
        plan: of the graph that body.onnx gives; `graph_reasons` tells whether that one is shipped.
    """
    recorded = [level.layer for level in record.priors]
    planned = [] if plan is None else [level.layer for level in plan.levels]
    found = [
        f"level {index} is {ours or 'absent'} in {MANIFEST} and {theirs or 'absent'} in the graph"
        for index, (ours, theirs) in enumerate(zip_longest(recorded, planned))
        if ours != theirs
    ]
    if not found:
        return ()
    text = f"what carries the priors is recorded wrongly: {_listed(found)}"
    return (Reason(Code.RECORD_DIFFERS, text),)


def _differences(shipped: NcnnGraph, again: NcnnGraph) -> Iterator[str]:
    ours = {layer.name: layer for layer in shipped.layers}
    theirs = {layer.name: layer for layer in again.layers}
    for layer in shipped.layers:
        if layer.name in theirs:
            yield from _layer_differences(layer, theirs[layer.name])
        else:
            yield f"{_called(layer)} is not in it"
    yield from (
        f"{_called(layer)} is missing" for name, layer in theirs.items() if name not in ours
    )
    if ours.keys() == theirs.keys() and list(ours) != list(theirs):
        yield "its layers stand in another order"


def _layer_differences(layer: NcnnLayer, expected: NcnnLayer) -> Iterator[str]:
    """Yield what is different in `layer`; the parameters of another type cannot be compared."""
    if layer.type != expected.type:
        yield f"{_called(layer)} should be a {expected.type}"
        return
    schema = LAYERS[layer.type]
    ours, theirs = schema.resolved(layer.params), schema.resolved(expected.params)
    sides: tuple[tuple[str, str | tuple[str, ...], str | tuple[str, ...]], ...] = (
        ("inputs", layer.inputs, expected.inputs),
        ("outputs", layer.outputs, expected.outputs),
        *((name, _said(ours[name]), _said(theirs[name])) for name in ours),
    )
    for what, own, wanted in sides:
        if own != wanted:
            yield f"{what} of {_called(layer)} is {_text(own)}, not {_text(wanted)}"


def _called(layer: NcnnLayer) -> str:
    return f"{layer.type} {layer.name!r}"


def _said(value: Param) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_said, value)) + ")"
    # nine digits tell any two float32 apart
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _text(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else " ".join(value) or "nothing"


def _storages(graph: NcnnGraph) -> dict[tuple[str, str], Storage]:
    return {(layer.name, w.role): w.storage for layer in graph.layers for w in layer.weights}


def _listed(found: Sequence[str]) -> str:
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join([*found[:_NAMED], *more])
