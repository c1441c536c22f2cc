"""The C API through ctypes, as a Python program would use it."""

import ctypes
import enum
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32

import numpy as np

FLOATS = POINTER(c_float)
BYTES = POINTER(ctypes.c_uint8)


class Status(enum.IntEnum):
    OK = 0
    BAD_ARGUMENT = 1
    BAD_CONTRACT = 2
    OTHER_VERSION = 3
    CANNOT_READ = 4
    BUFFER_TOO_SMALL = 5
    OUT_OF_MEMORY = 6
    BUG = 7


class Pixels(enum.IntEnum):
    RGB = 0
    BGR = 1
    RGBA = 2
    BGRA = 3
    GREY = 4
    NV21 = 5


class Description(ctypes.Structure):
    _fields_ = [
        (name, c_uint32)
        for name in (
            "input_width",
            "input_height",
            "class_count",
            "prior_count",
            "level_count",
            "max_detections",
            "lanes",
        )
    ]


class Image(ctypes.Structure):
    _fields_ = [
        ("pixels", BYTES),
        ("width", c_uint32),
        ("height", c_uint32),
        ("format", c_uint32),
        ("stride", c_size_t),
        ("chroma", BYTES),
        ("chroma_stride", c_size_t),
    ]


class Head(ctypes.Structure):
    _fields_ = [
        ("loc", FLOATS),
        ("conf", FLOATS),
        ("loc_size", c_size_t),
        ("conf_size", c_size_t),
        ("layout", c_uint32),
        ("loc_plane_step", c_size_t),
        ("conf_plane_step", c_size_t),
    ]


# a detection: four corners, score, label, prior
DETECTION = np.dtype(
    [("box", np.float32, 4), ("score", np.float32), ("label", np.int32), ("prior", np.int32)]
)

_PROTOTYPES = {
    "open": (c_char_p, POINTER(ctypes.c_void_p)),
    "open_memory": (c_char_p, c_size_t, POINTER(ctypes.c_void_p)),
    "describe": (ctypes.c_void_p, POINTER(Description)),
    "get_priors": (ctypes.c_void_p, FLOATS, c_size_t),
    "set_priors": (ctypes.c_void_p, FLOATS, c_size_t),
    "set_thresholds": (ctypes.c_void_p, c_double, c_double),
    "set_head_form": (ctypes.c_void_p, c_uint32, c_uint32),
    "set_clip": (ctypes.c_void_p, c_int),
    "preprocess": (ctypes.c_void_p, POINTER(Image), FLOATS, c_size_t),
    "postprocess": (
        *(ctypes.c_void_p, POINTER(Head), c_size_t, c_float, c_float),
        *(ctypes.c_void_p, c_size_t, POINTER(c_size_t)),
    ),
    "read_detection_out": (
        *(ctypes.c_void_p, FLOATS, c_size_t, c_size_t, c_float, c_float),
        *(ctypes.c_void_p, c_size_t, POINTER(c_size_t)),
    ),
}


class LibraryError(Exception):
    def __init__(self, status, sentence):
        super().__init__(f"{status.name}: {sentence}")
        self.status = status


class Library:
    """The loaded library."""

    def __init__(self, path):
        self.raw = ctypes.CDLL(str(path))
        for name, words in _PROTOTYPES.items():
            function = getattr(self.raw, f"mbv3ssd_{name}")
            function.argtypes, function.restype = words, c_int
        self.raw.mbv3ssd_close.argtypes = (ctypes.c_void_p,)
        self.raw.mbv3ssd_close.restype = None
        for name in ("version", "last_error", "class_name"):
            getattr(self.raw, f"mbv3ssd_{name}").restype = c_char_p
        self.raw.mbv3ssd_class_name.argtypes = (ctypes.c_void_p, c_int32)

    def call(self, name, *words):
        """Call a function; raise what it complains about."""
        status = Status(getattr(self.raw, f"mbv3ssd_{name}")(*words))
        if status is not Status.OK:
            raise LibraryError(status, self.raw.mbv3ssd_last_error().decode())

    def open(self, contract):
        """A detector from the bytes of a contract."""
        handle = ctypes.c_void_p()
        self.call("open_memory", contract, len(contract), byref(handle))
        return Detector(self, handle)

    def open_file(self, path):
        handle = ctypes.c_void_p()
        self.call("open", str(path).encode(), byref(handle))
        return Detector(self, handle)


class Detector:
    """A detector of the library. Arrays are handed over as they are: contiguous float32."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle
        self.about = Description()
        self.call("describe", byref(self.about))
        self._found = np.empty(self.about.max_detections, DETECTION)

    def __del__(self):
        self.library.raw.mbv3ssd_close(self.handle)

    def call(self, name, *words):
        self.library.call(name, self.handle, *words)

    def class_name(self, label):
        name = self.library.raw.mbv3ssd_class_name(self.handle, label)
        return None if name is None else name.decode()

    def priors(self):
        priors = np.empty((self.about.prior_count, 4), np.float32)
        self.call("get_priors", floats(priors), len(priors))
        return priors

    def preprocess(self, image):
        """The tensor (3, h, w) of an `Image`."""
        tensor = np.empty((3, self.about.input_height, self.about.input_width), np.float32)
        self.call("preprocess", byref(image), floats(tensor), tensor.size)
        return tensor

    def postprocess(self, *heads, size=(1.0, 1.0)):
        """What `Head` structures give, as an array of DETECTION."""
        parts = (Head * len(heads))(*heads)
        return self._filled("postprocess", parts, len(heads), *size)

    def detect(self, loc, conf, size=(1.0, 1.0)):
        """What heads (P, 4) and (P, C) give."""
        return self.postprocess(rows(loc, conf), size=size)

    def read_detection_out(self, blob, size=(1.0, 1.0)):
        """What the rows (n, 6) of detection_out give."""
        data = floats(blob) if blob.size else None
        return self._filled("read_detection_out", data, len(blob), 6, *size)

    def _filled(self, name, *words):
        if name == "read_detection_out" and len(self._found) < words[1]:
            self._found = np.empty(words[1], DETECTION)
        count = c_size_t()
        room = self._found.ctypes.data, len(self._found)
        self.call(name, *words, *room, byref(count))
        return self._found[: count.value].copy()


def floats(array):
    """A pointer to a contiguous float32 array."""
    assert array.dtype == np.float32
    assert array.flags["C_CONTIGUOUS"]
    return array.ctypes.data_as(FLOATS)


def rows(loc, conf):
    """Heads as rows; the arrays must live as long as they are used."""
    return Head(floats(loc), floats(conf), loc.size, conf.size, 0, 0, 0)


def image_of(pixels, kind=Pixels.RGB, chroma=None):
    """An `Image` of a uint8 array whose rows may have gaps between them."""
    data = pixels.ctypes.data_as(BYTES)
    height, width = pixels.shape[:2]
    if chroma is None:
        return Image(data, width, height, kind, pixels.strides[0], None, 0)
    side = chroma.ctypes.data_as(BYTES), chroma.strides[0]
    return Image(data, width, height, kind, pixels.strides[0], *side)
