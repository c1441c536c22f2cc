"""Random small ONNX models of the operators that are lowered: what hypothesis draws graphs from.

A model grows node by node: each takes tensors that are there already, at times one that other nodes
read, so that shared results, wanted intermediates and half patterns come about by themselves.
Weights are scaled so that values stay near 1.

hypothesis draws a seed and a length, and a random generator makes the rest of them: its own draws
would keep near the graphs that it has drawn. A failure shrinks by its length; the steps do not
change.
"""

import math
import random

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

OPSETS = (11, 13, 17, 18, 20)
SILENT = ("Identity", "Dropout", "Cast")
CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16)


class Growing:
    """A model in the making: its nodes, constants, and the shape of every tensor so far."""

    def __init__(self, seed):
        self.dice = random.Random(seed)  # noqa: S311 -- no secret
        self.numbers = np.random.default_rng(seed)
        self.opset = self.pick(*OPSETS)
        sides = self.dice.randint(1, 7), self.dice.randint(1, 7)
        self.shapes = {"x": (1, self.pick(*CHANNELS), *sides)}
        self.nodes, self.constants = [], []

    def pick(self, *options):
        return self.dice.choice(options)

    def flip(self):
        return self.dice.random() < 0.5

    def tensor(self, wanted=lambda _: True):
        """A tensor whose shape is as `wanted`, the newest ones more often; None without any."""
        fitting = [name for name, shape in self.shapes.items() if wanted(shape)]
        if not fitting:
            return None
        return fitting[-1] if self.flip() else self.pick(*fitting)

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, *shape, scale=1.0):
        return self.constant((scale * self.numbers.normal(size=shape)).astype(np.float32))

    def number(self, value, beside):
        """A constant of one number, of a rank up to its partner's, or made by a Constant node."""
        rank = self.pick(0, 1, len(beside))
        if self.flip():
            return self.constant(np.full((1,) * rank, value, np.float32))
        tensor = numpy_helper.from_array(np.full((1,) * rank, value, np.float32))
        node = helper.make_node("Constant", [], [f"k{len(self.nodes)}"], value=tensor)
        self.nodes.append(node)
        return node.output[0]

    def node(self, op, inputs, shape, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.shapes[name] = tuple(shape)
        return name

    def either_order(self, op, left, right, shape):
        pair = [left, right] if self.flip() else [right, left]
        return self.node(op, pair, shape)


def is_map(shape):
    return len(shape) == 4


def is_vector(shape):
    return len(shape) == 2


def is_table(shape):
    return len(shape) == 3


def convolution(model, x=None, *, kernels=(1, 1, 3, 5), out=None):
    x = x or model.tensor(is_map)
    _, channels, rows, cols = model.shapes[x]
    kernel = min(model.pick(*kernels), rows, cols)
    stride = model.pick(1, 1, 2)
    pad = model.pick(0, kernel // 2)
    group = 1 if out else model.pick(1, channels, math.gcd(channels, 2))
    out = out or (channels if group == channels else group * model.pick(1, 2, 4))
    weight = (out, channels // group, kernel, kernel)
    inputs = [x, model.normal(*weight, scale=1 / math.sqrt(math.prod(weight[1:])))]
    if model.flip():
        inputs.append(model.normal(out))
    sizes = [(n + 2 * pad - kernel) // stride + 1 for n in (rows, cols)]
    attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "group": group}
    return model.node("Conv", inputs, (1, out, *sizes), kernel_shape=[kernel] * 2, **attributes)


def batch_norm(model, x=None, *, adds=True):
    x = x or model.tensor(lambda shape: len(shape) in {2, 4})
    channels = model.shapes[x][1]
    spread = model.constant(model.numbers.uniform(0.3, 2, channels).astype(np.float32))
    size = 1.0 if adds else 0.0
    shift, mean = (model.normal(channels, scale=size) for _ in range(2))
    inputs = [x, model.normal(channels), shift, mean, spread]
    return model.node("BatchNormalization", inputs, model.shapes[x], epsilon=1e-3)


def activation(model, x=None):
    x = x or model.tensor()
    shape = model.shapes[x]
    kind = model.pick("Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Clip")
    if kind == "HardSwish" and model.opset < 14:
        kind = "HardSigmoid"
    if kind == "Clip":
        low, high = model.pick((0, 6), (-1, 1), (0, 1), (0.5, 2))
        limits = [model.constant(np.float32(low)), model.constant(np.float32(high))]
        return model.node("Clip", [x, *limits[: model.pick(1, 2)]], shape)
    attributes = {"alpha": model.pick(1 / 6, 0.2)} if kind == "HardSigmoid" else {}
    return model.node(kind, [x], shape, **attributes)


def block(model):
    """What the fusions look for: a convolution and what may go into it, at times read by others."""
    x = convolution(model) if model.flip() else batch_norm(model, model.tensor(is_map))
    for step in model.dice.sample((batch_norm, arithmetic_with_constant, convolution), 2):
        if model.flip():
            x = step(model, x)
    y = activation(model, x)
    if model.dice.random() < 0.3:
        return model.either_order(model.pick("Add", "Mul"), x, y, model.shapes[x])
    return y


def leading_norm(model):
    """A BatchNorm that cannot go into what is before it, and convolutions that may take it in.

    They may where they do not pad, or where it adds nothing.
    """
    x = model.tensor(lambda shape: is_map(shape) and min(shape[2:]) >= 3)
    if x is None:
        return block(model)
    norm = batch_norm(model, activation(model, x), adds=model.dice.random() < 0.8)
    for _ in range(model.pick(1, 1, 2)):
        x = convolution(model, norm, kernels=(1, 3, 3, 5))
    return x


def heads(model):
    """Rows of several maps, joined: the heads of a detector."""
    parts = [head(model) for _ in range(model.pick(2, 3))]
    parts = [part for part in parts if is_table(model.shapes[part]) and model.shapes[part][2] == 4]
    if len(parts) < 2:
        return activation(model)
    if model.dice.random() < 0.2:
        parts[0] = activation(model, parts[0])
    total = sum(model.shapes[part][1] for part in parts)
    return model.node("Concat", parts, (1, total, 4), axis=1)


def arithmetic_with_constant(model, x=None):
    x = x or model.tensor()
    shape = model.shapes[x]
    op = model.pick("Add", "Sub", "Mul", "Div", "Max", "Min")
    by_channel = (shape[1], 1, 1) if is_map(shape) else shape[1:]
    size = model.pick("number", by_channel, shape[1:])
    if size == "number":
        other = model.number(model.pick(3, 6, 0.5, 1 / 6, -1.5), shape)
    else:
        sign = 1 if model.flip() else -1
        other = model.constant((sign * model.numbers.uniform(0.4, 2, size)).astype(np.float32))
    if op == "Div":
        return model.node(op, [x, other], shape)
    return model.either_order(op, x, other, shape)


def arithmetic_of_two(model):
    x = model.tensor()
    shape = model.shapes[x]
    y = model.tensor(lambda other: other == shape)
    return model.either_order(model.pick("Add", "Sub", "Mul", "Max", "Min"), x, y, shape)


def spelt_gate(model):
    """HardSigmoid or HardSwish from its parts, right or with one number wrong."""
    x = model.tensor()
    shape = model.shapes[x]
    six = model.pick(6, 6, 6, 5)
    shifted = model.either_order("Add", x, model.number(3, shape), shape)
    limits = [model.constant(np.float32(0)), model.constant(np.float32(6))]
    gate = model.node("Clip", [shifted, *limits], shape)
    ends = model.pick("gate", "times x, then scaled", "scaled, then times x")
    if ends == "times x, then scaled":
        gate = model.either_order("Mul", x, gate, shape)
    if model.flip():
        gate = model.node("Div", [gate, model.number(six, shape)], shape)
    else:
        gate = model.either_order("Mul", gate, model.number(1 / six, shape), shape)
    if ends == "scaled, then times x":
        gate = model.either_order("Mul", gate, x, shape)
    return gate


def pooled(model, x):
    shape = (*model.shapes[x][:2], 1, 1)
    if model.flip():
        return model.node(model.pick("GlobalAveragePool", "GlobalMaxPool"), [x], shape)
    if model.opset >= 18:
        axes = model.constant(np.array([-1, -2]))
        return model.node("ReduceMean", [x, axes], shape, keepdims=1)
    return model.node("ReduceMean", [x], shape, axes=[2, 3], keepdims=1)


def squeeze_excite(model):
    x = model.tensor(is_map)
    channels = model.shapes[x][1]
    hidden = convolution(model, pooled(model, x), kernels=(1,), out=model.pick(1, 4))
    hidden = activation(model, hidden)
    gate = convolution(model, hidden, kernels=(1,), out=channels)
    if model.flip():
        gate = activation(model, gate)
    return model.either_order("Mul", x, gate, model.shapes[x])


def pooled_together(model):
    """Two poolings put together, one of them at times a single number; a gate, or what follows."""
    x = model.tensor(is_map)
    shape = model.shapes[x]
    y = model.tensor(lambda other: is_map(other) and other[1] in {1, shape[1]})
    pair = pooled(model, x), pooled(model, y)
    op = model.pick("Add", "Sub", "Mul", "Max")
    both = model.either_order(op, *pair, model.shapes[pair[0]])
    if model.flip():
        both = convolution(model, both, kernels=(1,), out=shape[1])
    return both if model.flip() else model.either_order("Mul", x, both, shape)


def window_pooling(model):
    x = model.tensor(lambda shape: is_map(shape) and min(shape[2:]) >= 2)
    if x is None:
        return convolution(model)
    *front, rows, cols = model.shapes[x]
    kind = model.pick("MaxPool", "AveragePool")
    kernel, stride = model.pick((2, 2), (2, 2), (2, 1), (min(3, rows, cols), 2))
    pad = model.pick(0, 0, kernel // 2)
    sizes = [(n + 2 * pad - kernel) // stride + 1 for n in (rows, cols)]
    extra = {"count_include_pad": model.pick(0, 1)} if kind == "AveragePool" else {}
    frame = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    return model.node(kind, [x], (*front, *sizes), **frame, **extra)


def join(model):
    x = model.tensor(lambda shape: len(shape) > 2)
    if x is None:
        return activation(model)
    shape = model.shapes[x]
    more = range(model.pick(1, 2))
    parts = [x, *(model.tensor(lambda s: len(s) > 2 and s[2:] == shape[2:]) for _ in more)]
    total = sum(model.shapes[part][1] for part in parts)
    return model.node("Concat", parts, (1, total, *shape[2:]), axis=model.pick(1, 1 - len(shape)))


def cut(model):
    x = model.tensor(lambda shape: shape[1] > 1)
    if x is None:
        return activation(model)
    shape = model.shapes[x]
    start = model.dice.randint(0, shape[1] - 1)
    end = model.dice.randint(start + 1, shape[1])
    limits = [model.constant(np.array([n])) for n in (start, end, 1)]
    return model.node("Slice", [x, *limits], (1, end - start, *shape[2:]))


def parts(model):
    """A Split, both parts to be read; at times they are put together the other way round."""
    x = model.tensor(lambda shape: shape[1] > 1)
    if x is None:
        return activation(model)
    _, count, *rest = model.shapes[x]
    size = model.dice.randint(1, count - 1)
    inputs, attributes = [x], {"axis": 1}
    if model.opset >= 13:
        inputs.append(model.constant(np.array([size, count - size])))
    else:
        attributes["split"] = [size, count - size]
    first = model.node("Split", inputs, (1, size, *rest), **attributes)
    second = f"{first}_rest"
    model.nodes[-1].output.append(second)
    model.shapes[second] = (1, count - size, *rest)
    if model.flip():
        return second
    return model.node("Concat", [second, first], (1, count, *rest), axis=1)


def square(model):
    x = model.tensor()
    return model.node("Pow", [x, model.number(2, model.shapes[x])], model.shapes[x])


def head(model):
    """Rows of four numbers: a map with its channels last, or its numbers as they come."""
    x = model.tensor(lambda shape: is_map(shape) and math.prod(shape) % 4 == 0)
    if x is None:
        return activation(model)
    _, channels, rows, cols = model.shapes[x]
    if model.flip():
        x = model.node("Transpose", [x], (1, rows, cols, channels), perm=[0, 2, 3, 1])
    count = channels * rows * cols // 4
    target = model.constant(np.array(model.pick([1, count, 4], [1, -1, 4])))
    return model.node("Reshape", [x, target], (1, count, 4))


def flatten(model):
    x = model.tensor(lambda shape: not is_vector(shape) and math.prod(shape) <= 256)
    if x is None:
        return activation(model)
    return model.node("Flatten", [x], (1, math.prod(model.shapes[x])))


def linear(model):
    x = model.tensor(is_vector)
    if x is None:
        return flatten(model)
    features, out = model.shapes[x][1], model.pick(1, 4, 6)
    weight = model.normal(out, features, scale=1 / math.sqrt(features))
    bias = [model.normal(out)] if model.flip() else []
    return model.node("Gemm", [x, weight, *bias], (1, out), transB=1)


def row_by_row(model):
    x = model.tensor(is_table)
    if x is None:
        return head(model)
    _, rows, features = model.shapes[x]
    out = model.pick(1, 3, 4)
    weight = model.normal(features, out, scale=1 / math.sqrt(features))
    return model.node("MatMul", [x, weight], (1, rows, out))


def softmax(model):
    x = model.tensor(is_table)
    if x is None:
        return activation(model)
    return model.node("Softmax", [x], model.shapes[x], axis=2)


def identity(model):
    x = model.tensor()
    kind = model.pick(*SILENT)
    attributes = {"to": 1} if kind == "Cast" else {}
    return model.node(kind, [x], model.shapes[x], **attributes)


STEPS = (
    *(block, block, block, block, heads, convolution, batch_norm, activation, activation),
    *(leading_norm, leading_norm, leading_norm),
    *(arithmetic_with_constant, arithmetic_with_constant, arithmetic_of_two, spelt_gate),
    *(squeeze_excite, pooled_together, window_pooling, join, cut, parts, head, head),
    *(flatten, linear, row_by_row, softmax, square, identity),
)


@st.composite
def onnx_models(draw, steps=(3, 12)):
    """A checked model with the input `x`, one to five outputs, and random numbers inside."""
    model = Growing(draw(st.integers(0, 2**64 - 1)))
    for _ in range(draw(st.integers(*steps))):
        model.pick(*STEPS)(model)
    # what an Identity gives is another tensor's name: two outputs may then be one, or the input
    made = [node.output[0] for node in model.nodes if node.op_type not in {*SILENT, "Constant"}]
    made = made or [activation(model, "x")]
    outputs = {made[-1], *(model.pick(*made) for _ in range(model.pick(0, 0, 1, 2)))}
    read = {tensor for node in model.nodes for tensor in node.input}
    ends = [tensor for tensor in made if tensor not in read]  # some of these stay dead
    outputs.update(model.dice.sample(ends, min(len(ends), model.pick(0, 1, 2))))
    return finished(model, sorted(outputs))


def finished(model, outputs):
    """The ONNX model; what only serves other tensors stays in it, dead or not."""
    values = [helper.make_tensor_value_info(n, 1, model.shapes[n]) for n in ("x", *outputs)]
    graph = helper.make_graph(model.nodes, "g", values[:1], values[1:], model.constants)
    imports = [helper.make_opsetid("", model.opset)]
    whole = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.checker.check_model(whole, full_check=True)
    return whole
