"""How the weights of a graph lie in the .bin file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mbv3ssd_deploy.ncnn_graph.check import FLOAT16_MAX
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Storage, Weight
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS

# ncnn's own tools write smaller weights as 0: denormal numbers slow arithmetic down.
SMALLEST_WEIGHT = 1e-30
FLOAT16_SMALLEST_NORMAL = 2.0**-14
CONVERTED = frozenset({"Convolution", "ConvolutionDepthWise", "InnerProduct"})


def with_storage(graph: NcnnGraph, storage: Storage) -> NcnnGraph:
    """Return `graph` with the weights of convolutions and inner products stored as `storage`.

    Biases, scales and constants have no storage word in the file and stay float32. Weights below
    1e-30 become 0. A blob with a number that float16 cannot hold (beyond 65504) stays float32, and
    so does one whose numbers are all below 6.1e-5, where float16 loses digits and then everything;
    int8 weights are left as they are.

    Raises:
        ValueError: for INT8, which needs scales; that is calibration's work.
    """
    if storage is Storage.INT8:
        raise ValueError("int8 weights come from calibration, with their scales")
    return NcnnGraph(tuple(_layer_with(layer, storage) for layer in graph.layers))


def _layer_with(layer: NcnnLayer, storage: Storage) -> NcnnLayer:
    if layer.type not in CONVERTED:
        return layer
    flagged = {field.role for field in LAYERS[layer.type].weights if field.flagged}
    weights = tuple(_weight_with(w, storage) if w.role in flagged else w for w in layer.weights)
    return replace(layer, weights=weights)


def _weight_with(weight: Weight, storage: Storage) -> Weight:
    if weight.storage is Storage.INT8:
        return weight
    small = np.abs(weight.data) < SMALLEST_WEIGHT
    data = np.where(small, np.float32(0), weight.data).astype(np.float32)
    largest = float(np.abs(data).max(initial=0))
    fits = largest == 0 or FLOAT16_SMALLEST_NORMAL <= largest <= FLOAT16_MAX
    if storage is Storage.FLOAT16 and not fits:
        storage = Storage.FLOAT32
    return Weight(weight.role, data, storage)
