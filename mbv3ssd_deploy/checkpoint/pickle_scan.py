"""The names that a pickle would import, read from its opcodes; nothing is ever executed.

The safety of reading rests on torch's `weights_only` and on `inert_pickle`, not on this: it only
finds out whether a file that the first refused is one for the second. Opcodes are described in
Python's `pickletools`.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from typing import BinaryIO

_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter)|argparse\.Namespace|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)"
    r"|torch\.(Size|device|\w*Storage|\w*Tensor|b?float\w*|u?int\w*|bool|complex\w*|strided)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.storage\.\w+"
    r"|torch\.nn\.parameter\.\w+|torch\.serialization\._get_layout"
)
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING"}
_TEXTS |= {"SHORT_BINSTRING"}
_STORES = {"PUT", "BINPUT", "LONG_BINPUT"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}


def foreign_globals(stream: BinaryIO, pickles: int = 1) -> tuple[str, ...]:
    """Return the globals, other than those of plain tensors, of the next `pickles` of `stream`.

    In order of appearance, each once. A broken pickle ends the scan; what was found until then is
    returned.
    """
    found: dict[str, None] = {}
    try:
        for _ in range(pickles):
            for name in _globals(stream):
                if not _HARMLESS.fullmatch(name):
                    found[name] = None
    except (ValueError, UnicodeError, OverflowError, MemoryError):
        pass  # pickletools raises these on bytes that are no pickle
    return tuple(found)


def _globals(stream: BinaryIO) -> Iterator[str]:
    texts: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in {"GLOBAL", "INST"}:
            yield str(argument).replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif name in _TEXTS:
            texts.append(str(argument))
        elif name in _STORES and texts and isinstance(argument, int):
            memo[argument] = texts[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif name in _FETCHES and argument in memo:
            texts.append(memo[argument])
