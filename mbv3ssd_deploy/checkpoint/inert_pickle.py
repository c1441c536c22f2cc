"""A pickle read without running anything: names stay names, objects become what was stored in them.

Python's `pickletools` decodes the opcodes (and describes them); this file gives each its meaning
on a stack. Nothing here imports, and nothing is called but the caller's own table of calls. So a
class that nobody has here is no obstacle, and a name that would do harm is only a word.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import BinaryIO

from mbv3ssd_deploy.checkpoint.inert_objects import Global, Inert, append_all, set_entries
from mbv3ssd_deploy.checkpoint.keymap import listed
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

Call = Callable[[tuple[object, ...]], object]
"""What stands in for a global that a pickle calls, given the arguments of the call."""

_NAME_LENGTH = 100


class InertUnpickler:
    """Reads one pickle of a stream; the stream then stands behind it.

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

    def load(self, stream: BinaryIO) -> object:
        """Return the object in the next pickle of `stream`.

        Raises:
            CheckpointError: the bytes are no sound pickle.
            UnsafeCheckpointError: it calls a global outside the table; the message names every
                one that it calls, nothing was run.
        """
        try:
            found = self._run(stream)
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            self._refuse()
            reason = str(error) if isinstance(error, ValueError) else "its pickle makes no sense"
            raise CheckpointError(
                f"the file is damaged or no checkpoint: {reason[:200]}"
            ) from error
        except CheckpointError:
            self._refuse()
            raise
        self._refuse()
        return found

    def _run(self, stream: BinaryIO) -> object:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _PUSHED:
                self.push(argument)
            elif opcode.name in _CONSTANTS:
                self.push(_CONSTANTS[opcode.name])
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise CheckpointError(f"its pickle uses {opcode.name}, which torch.save does not")
        return self.stack.pop()

    def _refuse(self) -> None:
        if self._refused:
            raise UnsafeCheckpointError(
                f"loading it would run {listed(self._refused)}; nothing was run",
                hint="if you trust its source, save only the weights with the code that made it: "
                "torch.save(model.state_dict(), 'weights.pth')",
            )

    def push(self, value: object) -> None:
        """Put `value` on the stack."""
        self.stack.append(value)

    def open_mark(self) -> None:
        """Put the stack aside and begin an empty one."""
        self._below_marks.append(self.stack)
        self.stack = []

    def close_mark(self) -> list[object]:
        """Return what lies above the last mark, and take up what was below it."""
        above, self.stack = self.stack, self._below_marks.pop()
        return above

    def call(self, function: object, arguments: object) -> object:
        """Return the table's answer; of any other global, an object that stands for the refusal.

        Reading goes on after a refusal, so that the error can name all of them.
        """
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("a call of what is no global")
        if function.name in self._calls:
            return self._calls[function.name](arguments)
        return self.refuse(function.name)

    def refuse(self, name: str) -> Inert:
        """Remember that `name` was called, and return what stands for the result."""
        self._refused[name] = None
        return Inert(name)

    def new_object(self, class_: object, arguments: object) -> object:
        """Return an object of `class_` without the call of anything."""
        if not isinstance(class_, Global):
            raise TypeError("an object of what is no class")
        return self.call(class_, arguments) if class_.name in self._calls else Inert(class_.name)


def _global(name: str) -> Global:
    return Global("".join(c if c.isprintable() else "?" for c in name)[:_NAME_LENGTH])


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
        raise TypeError("a state for what has none")


def _persistent(machine: InertUnpickler, argument: object) -> None:
    machine.push(machine.persistent(argument))


def _binary_persistent(machine: InertUnpickler, _: object) -> None:
    machine.push(machine.persistent(machine.stack.pop()))


def _put(machine: InertUnpickler, argument: object) -> None:
    machine.memo[_index(argument)] = machine.stack[-1]


def _memoize(machine: InertUnpickler, _: object) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: InertUnpickler, argument: object) -> None:
    machine.push(machine.memo[_index(argument)])


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise TypeError("a memo without a number")
    return argument


def _pop(machine: InertUnpickler, _: object) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.close_mark()


def _set_item(machine: InertUnpickler, _: object) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    set_entries(machine.stack[-1], [key, value])


def _set_items(machine: InertUnpickler, _: object) -> None:
    flat = machine.close_mark()
    set_entries(machine.stack[-1], flat)


def _append(machine: InertUnpickler, _: object) -> None:
    item = machine.stack.pop()
    append_all(machine.stack[-1], [item])


def _appends(machine: InertUnpickler, _: object) -> None:
    items = machine.close_mark()
    append_all(machine.stack[-1], items)


def _dict(machine: InertUnpickler, _: object) -> None:
    flat = machine.close_mark()
    machine.push({})
    set_entries(machine.stack[-1], flat)


def _tuple_of(count: int) -> Step:
    def step(machine: InertUnpickler, _: object) -> None:
        if len(machine.stack) < count:
            raise IndexError("a tuple of more than there is")
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
"""The opcodes that push the value which stands behind them."""

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
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _found_global,
    "STACK_GLOBAL": _stack_global,
    "PERSID": _persistent,
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
