"""Reading the pickles of CIFAR without running what a pickle may ask to run.

A pickle is a program for a small machine that may call any function it can name. This reader knows the few
names that CIFAR's files use and gives stand-ins of our own for them, so even NumPy's own unpickling, which
trusts its input, is never reached. Anything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.paths import reading
from regraft.data.raw import Array
from regraft.errors import FileError


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file: keys as str; values lists, ``bytes``, numbers or NumPy arrays.

    Raises:
        FileError: missing, corrupt, truncated, no dictionary, or a pickle that names any other function.
    """
    with reading(path, "a CIFAR file (python version)"):
        value = _Reader(io.BytesIO(path.read_bytes()), path).load()
        if not isinstance(value, dict):
            raise FileError(f"'{path}' holds a {type(value).__name__}: a CIFAR file holds a dictionary")
        return {_text(k): _plain(v) for k, v in value.items()}
    raise AssertionError  # pragma: no cover


def _plain(value: object) -> Any:
    """A value that is no stand-in of ours, nor a list of such."""
    inside = value if isinstance(value, list | tuple) else ()
    if isinstance(value, _Dtype | _Call) or any(isinstance(v, _Dtype | _Call | _Array) for v in inside):
        raise pickle.UnpicklingError("a function or a type in the place of data")
    return value.array() if isinstance(value, _Array) else value


def _text(value: object) -> str:
    """Strings of Python 2's pickles come as bytes."""
    if not isinstance(value, str | bytes | int):  # tuples of tuples could be endless as text
        raise pickle.UnpicklingError(f"a {type(value).__name__} as a name")
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


class _Dtype:
    """Stands for ``numpy.dtype``: the dtypes of whole numbers and floats alone."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def real(self) -> np.dtype[Any]:
        codes = ("u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8")
        if self.code not in codes or self.order not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError(f"an array of type {self.order}{self.code}")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for ``numpy.ndarray``: shape, dtype and bytes, put together at the end."""

    __slots__ = ("data", "dtype", "order", "shape")

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"

    def array(self) -> Array:
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes | bytearray):
            raise pickle.UnpicklingError("an array that is not made of a type and bytes")
        shape = tuple(int(n) for n in self.shape)
        flat = np.frombuffer(self.data, dtype=self.dtype.real())
        if len(flat) != math.prod(shape) or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(flat)} numbers")
        return flat.reshape(shape, order="F" if self.order == "F" else "C")


class _Call:
    """A callable without attributes: a pickle can neither read nor set anything on it."""

    __slots__ = ("_kind",)

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for a function")

    def __call__(self, *args: Any) -> Any:
        if self._kind == "reconstruct":
            return _Array()
        if self._kind == "dtype":
            return _Dtype(_text(args[0]))
        if self._kind == "frombuffer":
            buffer, dtype, shape, order = args
            made = _Array()
            made.__setstate__((1, shape, dtype, order == "F", buffer))
            return made
        if self._kind == "empty" and not args:
            return b""
        if self._kind == "encode" and args[1:] == ("latin1",):
            return args[0].encode("latin1")
        raise pickle.UnpicklingError(f"a call that CIFAR files do not make ({self._kind})")


_ALLOWED = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("_codecs", "encode"): "encode",
    # how Python 3 writes b"" in protocol 2
    ("__builtin__", "bytes"): "empty",
}


_OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET",
    "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
)  # fmt: skip
"""What dicts of arrays, lists, texts and numbers are written with; nothing that makes objects or room."""


def _known() -> dict[int, Any]:
    codes = [getattr(pickle, name)[0] for name in _OPCODES]
    every: dict[int, Any] = pickle._Unpickler.dispatch
    return {code: every[code] for code in codes}


# The pure Python reader: the C one can be made to take tens of gigabytes by a few corrupt bytes.
_Unpickler: Any = pickle._Unpickler


class _Reader(_Unpickler):  # type: ignore[misc]
    dispatch = _known()

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_dict()

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))  # pickle's own makes room before it looks

    def _check_keys(self, keys: list[Any]) -> None:
        """To find the place of a tuple of tuples can take for ever."""
        for key in keys:
            _text(key)

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        kind = _ALLOWED.get((module, name))
        if kind is None:
            raise FileError(
                f"'{self._path}' asks to run {f'{module}.{name}'!r}, which no CIFAR file does: "
                "nothing of it was run; it may be malicious, do not use it"
            )
        return _Call(kind)
