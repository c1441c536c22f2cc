"""Small ncnn models written by hand: text and bytes, no code of ours in between."""

import numpy as np

LEVEL = 4  # rows and columns of the only feature map
BOXES = 2
CLASSES = 3
PRIORS = LEVEL * LEVEL * BOXES

# stride-2 convolution of the 8 x 8 input, then one 1x1 head each for loc and conf
HEADS_PARAM = f"""7767517
11 13
Input input 0 1 input 0=8 1=8 2=3
Convolution stem 1 1 input stem 0=4 1=3 3=2 4=1 5=1 6=108 9=1
Split split 1 2 stem stem_a stem_b
Convolution loc_conv 1 1 stem_a loc_map 0={4 * BOXES} 1=1 5=1 6={4 * 4 * BOXES}
Permute loc_hwc 1 1 loc_map loc_rows 0=3
Flatten loc_flat 1 1 loc_rows mbox_loc
Convolution conf_conv 1 1 stem_b conf_map 0={CLASSES * BOXES} 1=1 5=1 6={4 * CLASSES * BOXES}
Permute conf_hwc 1 1 conf_map conf_rows 0=3
Reshape conf_flat 1 1 conf_rows conf_cells 0={CLASSES} 1=-1
Split conf_split 1 2 conf_cells mbox_conf conf_more
Softmax softmax 1 1 conf_more mbox_conf_softmax 0=1 1=1
"""

WEIGHT_SHAPES = {
    "stem.weight": (4, 3, 3, 3),
    "stem.bias": (4,),
    "loc.weight": (4 * BOXES, 4, 1, 1),
    "loc.bias": (4 * BOXES,),
    "conf.weight": (CLASSES * BOXES, 4, 1, 1),
    "conf.bias": (CLASSES * BOXES,),
}

# one box a cell, with MemoryData for heads: what DetectionOutput finds does not depend on the input
DETECTIONS_PARAM = """7767517
5 5
Input input 0 1 input 0=8 1=8 2=3
MemoryData loc 0 1 mbox_loc 0=8
MemoryData conf 0 1 mbox_conf_softmax 0=2 1=2
MemoryData priors 0 1 mbox_priorbox 0=8 1=2
DetectionOutput out 3 1 mbox_loc mbox_conf_softmax mbox_priorbox detection_out 0=2 2=9 3=9 4=0.5
"""


def weights(seed=0):
    random = np.random.default_rng(seed)
    shapes = WEIGHT_SHAPES.items()
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes}


def heads_bin(values):
    """Convolution weights follow a zero tag (plain float32); biases stand bare."""
    parts = []
    for name in WEIGHT_SHAPES:
        parts.append(b"\0\0\0\0" if name.endswith("weight") else b"")
        parts.append(values[name].tobytes())
    return b"".join(parts)


def detections_bin(score):
    """Two equal priors; the first has the foreground score `score`, the second none."""
    loc = np.zeros(8)
    conf = np.array([1 - score, score, 1, 0])
    priors = np.array([[0.25, 0.25, 0.75, 0.75] * 2, [0.1, 0.1, 0.2, 0.2] * 2])
    return b"".join(part.astype(np.float32).tobytes() for part in (loc, conf, priors))


def write(folder, param, data):
    param_path, bin_path = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    param_path.write_text(param)
    bin_path.write_bytes(data)
    return param_path, bin_path
