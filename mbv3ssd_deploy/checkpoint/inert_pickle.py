"""Read a pickle without running anything: names stay names, objects become their stored state.

Python's `pickletools` decodes the opcodes (and describes them); this file gives each its meaning on
a stack. Nothing is imported, and nothing is called except the caller's own table of calls. So a
class that is not installed is no obstacle, and a name that would do harm is only text.

Limits keep a hostile pickle cheap: the number of operations, the size of integers, and the kinds of
keys. Containers may share parts or contain themselves, so whoever walks the result must count.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from mbv3ssd_deploy.checkpoint.keymap import listed
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

Call = Callable[[tuple[object, ...]], object]
"""What replaces a global that a pickle calls, given the arguments of the call."""

MOST_OPERATIONS = 1_000_000
"""A checkpoint with its optimiser has some 100,000."""
_MOST_OBJECTS = 200_000
"""Inert objects, which take far more memory than the opcodes that make them."""
_MOST_BITS = 1024
"""Of an integer; the states of random generators have 128."""
_KEY_BITS = 63
"""Of an integer as a key: larger ones can be made to collide, which makes a dictionary slow."""
_KEY_PARTS = 16
_MOST_TUPLE_KEYS = 10_000
_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, "module.name"; it was never looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Inert:
    """An object without its class: what the file stored in it, and no behaviour.

    Attributes:
        class_name: "module.name" of its class.
        state: what its `__setstate__` would have received.
        elements: what would have been appended or added to it.
        entries: what would have been set in it by key.
    """

    class_name: str
    state: object = None
    elements: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[object, object]:
        """The attributes that a plain object would have; empty if its state is not a dictionary."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # of the dictionary and the slots
            state = state[0]
        return state if isinstance(state, dict) else {}


class InertUnpickler:
    """Reads one pickle of a stream, and leaves the stream behind it.

    Args:
        calls: by "module.name", what answers a call of that global; every other is refused.
        persistent: what answers a persistent id.
    """

    def __init__(self, calls: Mapping[str, Call], persistent: Callable[[object], object]) -> None:
        self.persistent = persistent
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self._calls = calls
        self._below_marks: list[list[object]] = []
        self._refused: dict[str, None] = {}
        self._tuple_keys = 0
        self._objects = 0

    def load(self, stream: BinaryIO) -> object:
        """Return the object in the next pickle of `stream`.

        Raises:
            CheckpointError: not a well-formed pickle, or one beyond the limits.
            UnsafeCheckpointError: it calls globals outside the table; the message names all of
                them. Nothing was run.
        """
        try:
            found = self._run(stream)
        except CheckpointError:
            self._raise_refused()
            raise
        except Exception as error:  # pickletools raises nearly anything on damaged bytes
            self._raise_refused()
            reason = str(error)[:200] if isinstance(error, ValueError) else "it is not well-formed"
            raise CheckpointError(f"the pickle in the file is damaged: {reason}") from error
        self._raise_refused()
        return found

    def _run(self, stream: BinaryIO) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MOST_OPERATIONS:
                raise CheckpointError(f"the pickle has more than {MOST_OPERATIONS} operations")
            if opcode.name in _PUSHED:
                if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                    raise CheckpointError(f"the pickle has an integer of over {_MOST_BITS} bits")
                self.push(argument)
            elif opcode.name in _CONSTANTS:
                self.push(_CONSTANTS[opcode.name])
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise CheckpointError(
                    f"the pickle uses {opcode.name}, which torch.save does not write"
                )
        return self.stack.pop()

    def _raise_refused(self) -> None:
        if self._refused:
            raise UnsafeCheckpointError(
                f"loading it would run {listed(self._refused)}; nothing was run",
                hint="if you trust its source, save only the weights with the code that made it: "
                "torch.save(model.state_dict(), 'weights.pth')",
            )

    def push(self, value: object) -> None:
        """Put `value` on the stack.

        Raises:
            CheckpointError: too many inert objects.
        """
        self._objects += isinstance(value, Inert)
        if self._objects > _MOST_OBJECTS:
            raise CheckpointError(f"the pickle has more than {_MOST_OBJECTS} objects")
        self.stack.append(value)

    def open_mark(self) -> None:
        """Put the stack aside and start an empty one."""
        self._below_marks.append(self.stack)
        self.stack = []

    def close_mark(self) -> list[object]:
        """Return what is above the last mark, and restore the stack below it."""
        above, self.stack = self.stack, self._below_marks.pop()
        return above

    def call(self, function: object, arguments: object) -> object:
        """Return the table's answer; for any other global, an object in place of the result.

        Reading continues after a refusal, so that the error can name all of them.
        """
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("only globals can be called")
        if function.name in self._calls:
            return self._calls[function.name](arguments)
        return self.refuse(function.name)

    def refuse(self, name: str) -> Inert:
        """Record that `name` was called; return an object in place of the result."""
        self._refused[name] = None
        return Inert(name)

    def new_object(self, class_: object, arguments: object) -> object:
        """Return an object of `class_`, without calling anything."""
        if not isinstance(class_, Global):
            raise TypeError("only classes have objects")
        return self.call(class_, arguments) if class_.name in self._calls else Inert(class_.name)

    def set_entries(self, flat: list[object]) -> None:
        """Set alternating keys and values in the dictionary or object on top of the stack."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Inert) else target
        if not isinstance(entries, dict):
            raise TypeError("it has no entries")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            self._tuple_keys += isinstance(key, tuple)
            if self._tuple_keys > _MOST_TUPLE_KEYS:
                raise CheckpointError(f"the pickle has over {_MOST_TUPLE_KEYS} tuples as keys")
            entries[key_of(key)] = value

    def append_all(self, items: list[object]) -> None:
        """Append `items` to the list or object on top of the stack."""
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Inert) else target
        if not isinstance(elements, list):
            raise TypeError("it has no elements")
        elements.extend(items)


def key_of(key: object) -> object:
    """Return `key` if hashing it is cheap.

    Raises:
        CheckpointError: a nested or long tuple, a large integer, or an object without a hash.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > _KEY_PARTS or not all(_is_cheap(part) for part in parts):
        raise CheckpointError("a dictionary in the file has a key that takes long to hash")
    return key


def _is_cheap(part: object) -> bool:
    if isinstance(part, int):
        return part.bit_length() <= _KEY_BITS
    if part is None or isinstance(part, str | bytes | float | Global):
        return True
    return type(part).__hash__ is object.__hash__  # by identity, as of a parameter


def _global(name: str) -> Global:
    return Global("".join(c if c.isprintable() else "?" for c in name[:_NAME_LENGTH]))


def _found_global(machine: InertUnpickler, argument: object) -> None:
    machine.push(_global(str(argument).replace(" ", ".")))


def _stack_global(machine: InertUnpickler, _: object) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("a global without a name")
    machine.push(_global(f"{module}.{name}"))


def _reduce(machine: InertUnpickler, _: object) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.call(function, arguments))


def _inst(machine: InertUnpickler, argument: object) -> None:
    arguments = tuple(machine.close_mark())
    machine.push(machine.call(_global(str(argument).replace(" ", ".")), arguments))


def _obj(machine: InertUnpickler, _: object) -> None:
    class_, *arguments = machine.close_mark()
    machine.push(machine.call(class_, tuple(arguments)))


def _extension(machine: InertUnpickler, argument: object) -> None:
    machine.push(machine.refuse(f"extension {argument} of copyreg"))


def _new_object(machine: InertUnpickler, _: object) -> None:
    arguments, class_ = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.new_object(class_, arguments))


def _new_object_with_keywords(machine: InertUnpickler, _: object) -> None:
    machine.stack.pop()
    _new_object(machine, None)


def _build(machine: InertUnpickler, _: object) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Inert):
        target.state = state
    elif not isinstance(target, dict):  # a state_dict carries its _metadata this way
        raise TypeError("it has no state")


def _binary_persistent(machine: InertUnpickler, _: object) -> None:
    machine.push(machine.persistent(machine.stack.pop()))


def _put(machine: InertUnpickler, argument: object) -> None:
    machine.memo[_index(argument)] = machine.stack[-1]


def _memoize(machine: InertUnpickler, _: object) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: InertUnpickler, argument: object) -> None:
    machine.push(machine.memo[_index(argument)])


def _index(argument: object) -> int:
    if not isinstance(argument, int) or argument.bit_length() > _KEY_BITS:
        raise TypeError("a memo without a number")
    return argument


def _pop(machine: InertUnpickler, _: object) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.close_mark()


def _set_item(machine: InertUnpickler, _: object) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_entries([key, value])


def _append(machine: InertUnpickler, _: object) -> None:
    item = machine.stack.pop()
    machine.append_all([item])


def _dict(machine: InertUnpickler, _: object) -> None:
    flat = machine.close_mark()
    machine.push({})
    machine.set_entries(flat)


def _tuple_of(count: int) -> Step:
    def step(machine: InertUnpickler, _: object) -> None:
        if len(machine.stack) < count:
            raise IndexError("a tuple of more than the stack holds")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return step


def _set_of(elements: list[object], name: str) -> Inert:
    return Inert(f"builtins.{name}", elements=elements)


Step = Callable[[InertUnpickler, object], None]

_PUSHED = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""The opcodes that push their argument."""

_CONSTANTS: Mapping[str, object] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}

_STEPS: Mapping[str, Step] = {
    "PROTO": lambda _machine, _: None,
    "FRAME": lambda _machine, _: None,
    "STOP": lambda _machine, _: None,
    "MARK": lambda machine, _: machine.open_mark(),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.close_mark().clear(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(_set_of([], "set")),
    "LIST": lambda machine, _: machine.push(machine.close_mark()),
    "DICT": _dict,
    "FROZENSET": lambda machine, _: machine.push(_set_of(machine.close_mark(), "frozenset")),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.close_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": lambda machine, _: machine.append_all(machine.close_mark()),
    "ADDITEMS": lambda machine, _: machine.append_all(machine.close_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_entries(machine.close_mark()),
    "GLOBAL": _found_global,
    "STACK_GLOBAL": _stack_global,
    "PERSID": lambda machine, argument: machine.push(machine.persistent(argument)),
    "BINPERSID": _binary_persistent,
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_with_keywords,
    "BUILD": _build,
    "REDUCE": _reduce,
    "INST": _inst,
    "OBJ": _obj,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
}
