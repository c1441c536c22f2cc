"""Files in torch's containers whose pickles and storages say what a test wants them to say."""

import io
import pickle
import struct
import zipfile

import torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True}


class StorageId:
    """A storage's persistent id: (type, key, location, count[, view]), true or not."""

    def __init__(self, *parts):
        self.parts = parts


class TensorOf:
    """What pickles as the tensor of any numbers, without a look at them."""

    def __init__(self, storage, offset, size, stride, *more):
        self.arguments = (storage, offset, size, stride, False, {}, *more)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        return ("storage", *thing.parts) if isinstance(thing, StorageId) else None


def pickled(thing, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(thing)
    return buffer.getvalue()


def float_storage(key="0", count=6, *view):
    return StorageId(torch.FloatStorage, key, "cpu", count, *view)


def wrap_pickle(path, code, *, legacy=False, storages=None, system=SYSTEM):
    """Put the pickle `code` and raw `storages` (key -> bytes of float32) into a container."""
    storages = {} if storages is None else storages
    if legacy:
        parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, system)]
        parts += [code, pickle.dumps(list(storages), protocol=2)]
        for raw in storages.values():
            parts += [struct.pack("<q", len(raw) // 4), raw]
        path.write_bytes(b"".join(parts))
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/version", "3\n")
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


class Vanished:
    """A class that a pickle names and nobody has: its global is not looked up when writing."""


def module_of(**tensors):
    """The pickle of a module with `tensors` as buffers, whose class cannot be imported."""
    thing = Vanished()
    vars(thing).update(_modules={}, _parameters={}, _buffers=tensors)
    name = f"c{Vanished.__module__}\n{Vanished.__qualname__}\n".encode()
    return pickled({"epoch": 3, "model": thing}).replace(name, b"cvanished_code\nNet\n")
