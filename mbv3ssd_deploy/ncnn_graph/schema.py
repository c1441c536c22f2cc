"""The parts of a layer's schema: numbered parameters, weights, how many blobs it takes and makes.

`ncnn_graph.layers` fills them in for every layer type that we know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbv3ssd_deploy.ncnn_graph.graph import Param

Kind = Literal["int", "float", "ints", "floats"]
"""The type of a parameter. ncnn distinguishes an integer from a float by its spelling alone."""


@dataclass(frozen=True, slots=True)
class Same:
    """A default that is the value of another parameter of the same layer."""

    name: str


@dataclass(frozen=True, slots=True)
class ParamField:
    """One numbered parameter of a layer: its number, ncnn's own name for it, its default."""

    id: int
    name: str
    default: Param | Same
    kind: Kind

    @property
    def is_array(self) -> bool:
        """Whether the parameter holds a list of numbers."""
        return self.kind in {"ints", "floats"}

    @property
    def is_float(self) -> bool:
        """Whether its numbers are float32."""
        return self.kind in {"float", "floats"}

    def fits(self, value: Param) -> bool:
        """Return whether `value` is of this parameter's kind; an int is not a float here."""
        numbers = value if isinstance(value, tuple) else (value,)
        number_type = float if self.is_float else int
        is_array = isinstance(value, tuple)
        return is_array == self.is_array and all(type(n) is number_type for n in numbers)

    def stored(self, value: Param) -> Param:
        """Return `value` as ncnn will hold it: a Python int, or a float that is a float32.

        An integer is accepted for a float, a single number never for an array.

        Raises:
            TypeError: the value is of another kind than this parameter.
            ValueError: a float is not finite in 32 bits, an integer needs more than 32 bits.
        """
        if self.is_array != isinstance(value, tuple | list):
            one = "" if self.is_array else "one "
            raise TypeError(f"{self.name} holds {one}{self.kind}, got {value!r}")
        if isinstance(value, tuple | list):
            return tuple(map(self._number, value))
        return self._number(value)

    def _number(self, value: object) -> int | float:
        if isinstance(value, int | np.integer) and not self.is_float:
            if not -(2**31) <= value < 2**31:
                raise ValueError(f"{self.name} = {value} does not fit in 32 bits")
            return int(value)
        if not self.is_float or not isinstance(value, int | float | np.number):
            raise TypeError(f"{self.name} holds {self.kind}, got {value!r}")
        with np.errstate(over="ignore"):
            rounded = float(np.float32(value))
        if not math.isfinite(rounded):
            raise ValueError(f"{self.name} = {value} is not a finite float32; ncnn cannot read it")
        return rounded


@dataclass(frozen=True, slots=True)
class When:
    """A condition on a parameter: it has one of `values`, or, without values, is not 0."""

    name: str
    values: tuple[int, ...] = ()

    def holds(self, params: Mapping[str, Param]) -> bool:
        """Return whether `params`, which must hold every parameter, meet the condition."""
        value = params[self.name]
        return value in self.values if self.values else value != 0


@dataclass(frozen=True, slots=True)
class WeightField:
    """One weight blob of a layer, in the order of the .bin file.

    Attributes:
        role: what the numbers are for.
        flagged: a word before the blob gives its storage (ncnn's load type 0); otherwise the blob
            is bare float32 (load type 1).
        factors: the blob's length is the product of these parameters; without factors it is 1.
        when: all must hold, or the blob is absent.
        zero_is_one: a factor of 0 counts as 1 (MemoryData leaves out the dimensions it lacks).
    """

    role: str
    flagged: bool
    factors: tuple[str, ...]
    when: tuple[When, ...] = ()
    zero_is_one: bool = False

    def length(self, params: Mapping[str, Param]) -> int:
        """Return how many numbers the blob has in a layer with `params` (every parameter)."""
        sizes = [size for name in self.factors if isinstance(size := params[name], int)]
        return math.prod(max(size, 1) if self.zero_is_one else size for size in sizes)


@dataclass(frozen=True, slots=True)
class Arity:
    """How many blobs a layer may take or make; `most` None means no limit."""

    least: int
    most: int | None

    def allows(self, count: int) -> bool:
        """Return whether `count` blobs are within the limits."""
        return self.least <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"{self.least} or more"
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


ONE = Arity(1, 1)


@dataclass(frozen=True, slots=True)
class LayerSchema:
    """What ncnn expects of one layer type.

    `explicit`: every parameter is written, also one that equals its default, because the default
    is easily misremembered or has changed between releases of ncnn.
    """

    type: str
    fields: tuple[ParamField, ...]
    weights: tuple[WeightField, ...] = ()
    inputs: Arity = ONE
    outputs: Arity = ONE
    explicit: bool = False

    def field(self, name: str) -> ParamField:
        """Return the parameter called `name`.

        Raises:
            KeyError: the layer type has no such parameter.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.type} has no parameter {name!r}")

    def value(self, params: Mapping[str, Param], name: str) -> Param:
        """Return the parameter `name` as ncnn reads it: from `params`, or its default."""
        if name in params:
            return params[name]
        default = self.field(name).default
        return self.value(params, default.name) if isinstance(default, Same) else default

    def resolved(self, params: Mapping[str, Param]) -> dict[str, Param]:
        """Return every parameter of the layer type, defaults included, in table order."""
        full: dict[str, Param] = {}
        for field in self.fields:
            default = field.default
            if field.name in params:
                full[field.name] = params[field.name]
            else:
                full[field.name] = (
                    self.value(params, default.name) if isinstance(default, Same) else default
                )
        return full

    def without_defaults(self, params: Mapping[str, Param]) -> dict[str, Param]:
        """Return the parameters that differ from ncnn's defaults, in table order.

        Equal layers then have equal parameters. An integer -233 where the default is -233.0 stays:
        it is a fault of the file that must be reported.
        """
        kept: dict[str, Param] = {}
        for name in (field.name for field in self.fields if field.name in params):
            others = {other: value for other, value in params.items() if other != name}
            default = self.value(others, name)
            if type(params[name]) is not type(default) or params[name] != default:
                kept[name] = params[name]
        return kept

    def weights_of(self, params: Mapping[str, Param]) -> tuple[tuple[WeightField, int], ...]:
        """Return the blobs that a layer with `params` has in the .bin file, with their lengths."""
        full = self.resolved(params)
        present = (w for w in self.weights if all(when.holds(full) for when in w.when))
        return tuple((weight, weight.length(full)) for weight in present)
