"""Pickle files read without unpickling: what they name is neither imported nor called.

A pickle is a program for a small stack machine. This one runs it over inert records instead of
objects: a "call" just notes the name and the arguments. Names outside a short list end the reading,
and so do programs longer than a model's (one cannot make them use much memory, either: records are
only as large as what the file holds). Opcodes: the standard library's `pickletools`.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from p2f_lib.errors import P2FError

MAX_STEPS = 20_000  # a FLAME file takes hundreds
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")  # protocol 5
_SPARSE = {
    f"scipy.sparse.{module}.{kind}_matrix": getattr(sparse, f"{kind}_matrix")
    for kind in ("csc", "csr")
    for module in (kind, f"_{kind}")
}
ALLOWED = {
    *_RECONSTRUCT,
    *_FROM_BUFFER,
    *_SPARSE,
    *("numpy.ndarray", "numpy.dtype"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("copy_reg._reconstructor", "copyreg._reconstructor", "_codecs.encode"),
    *("__builtin__.object", "builtins.object", "__builtin__.set", "builtins.set"),
    *("chumpy.ch.Ch", "chumpy.reordering.Select"),
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8",),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(eq=False)
class Record:
    """Something that a pickle wanted made: what, from what, and the state set afterwards."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


def read_pickle(path: Path) -> object:
    """The contents of a pickle file: literals, tuples, lists, dictionaries and `Record`.

    Raises
    ------
    P2FError : a name that isn't allowed, or an opcode that no model needs.
    Other exceptions of the parser: truncated or alien.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # typeshed's list of what `genops` reads from lacks maps, which have the methods it needs.
        return _run(pickletools.genops(data), path)  # type: ignore[arg-type]


def _run(
    operations: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]], path: Path
) -> object:
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}

    def since_mark() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def last(n: int) -> list:
        if n > len(stack) - (marks[-1] if marks else 0):
            raise P2FError("its program takes more than it has put down")
        items = stack[len(stack) - n :]
        del stack[len(stack) - n :]
        return items

    def fill(items: list) -> None:
        """Put keys and values into the dictionary on top."""
        if not all(isinstance(key, str) for key in items[::2]):
            raise P2FError("a dictionary has keys that are no text")
        stack[-1].update(zip(items[::2], items[1::2], strict=True))

    for step, (opcode, value, _) in enumerate(operations):
        if step > MAX_STEPS:
            raise P2FError(f"its program is longer than {MAX_STEPS} steps")
        name = opcode.name
        if name in _LITERALS:
            stack.append(value)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[value] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            full = value.replace(" ", ".") if value else ".".join(last(2))
            if full not in ALLOWED:
                raise P2FError(
                    f"{path} names {full[:80]!r}, which no face model needs. Nothing of it was "
                    "executed; don't open such a file with other programs."
                )
            stack.append(Record(full))
        elif name in ("REDUCE", "NEWOBJ"):
            made, arguments = last(2)
            stack.append(Record(made.name, arguments))
        elif name == "BUILD":
            (state,) = last(1)
            stack[-1].state = state
        elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(last(int(name[5:]) if name[5:].isdigit() else 0)))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append(since_mark() if name == "LIST" else [])
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else last(1)
            stack[-1].extend(items)
        elif name in ("EMPTY_DICT", "DICT"):
            items = since_mark() if name == "DICT" else []
            stack.append({})
            fill(items)
        elif name in ("SETITEM", "SETITEMS"):
            fill(since_mark() if name == "SETITEMS" else last(2))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise P2FError(f"its program holds the instruction {name}, which no face model needs")
    raise P2FError("its program has no end")


def array(value: object, what: str) -> np.ndarray | sparse.spmatrix:
    """The numbers of a NumPy array, of a SciPy matrix, or of a chumpy object around an array."""
    if not isinstance(value, Record):
        raise P2FError(f"{what} is not an array of numbers")
    name, state = value.name, value.state
    if name.endswith("._reconstructor"):  # how protocols 0 and 1 make an object of a class
        name = value.arguments[0].name
    if name == "chumpy.ch.Ch":
        return _plain(state["x"], what)
    if name == "chumpy.reordering.Select":
        source = state["a"].state["x"] if state["a"].name == "chumpy.ch.Ch" else state["a"]
        picked = _plain(source, what).ravel()[_plain(state["idxs"], what).ravel()]
        return picked.reshape(state["preferred_shape"])
    if name in _SPARSE:
        parts = tuple(_plain(state[key], what) for key in ("data", "indices", "indptr"))
        matrix = _SPARSE[name](parts, shape=tuple(state["_shape"]))
        matrix.check_format(full_check=True)
        return matrix
    return _plain(value, what)


def _plain(value: Record, what: str) -> np.ndarray:
    if value.name in _RECONSTRUCT:
        _, shape, kind, fortran, data = value.state
    elif value.name in _FROM_BUFFER:
        data, kind, shape, order = value.arguments
        fortran = order == "F"
    else:
        raise P2FError(f"{what} is not an array of numbers")
    stored = np.frombuffer(_raw(data), _type(kind, what))
    return stored.reshape(shape, order="F" if fortran else "C")


def _raw(data: Any) -> bytes:
    if isinstance(data, Record) and data.name == "_codecs.encode":
        data = data.arguments[0]  # how Python 3 writes bytes for Python 2
    return data.encode("latin-1") if isinstance(data, str) else data


def _type(kind: Record, what: str) -> np.dtype:
    """A number type from its name; text, objects and structures are not numbers."""
    text = kind.arguments[0] if kind.name == "numpy.dtype" else None
    if not isinstance(text, str) or text[:1] not in "fiu" or not text[1:].isdigit():
        raise P2FError(f"{what} is not an array of numbers")
    order = kind.state[1] if isinstance(kind.state, tuple) else "<"
    known: Literal["<", ">", "="] = "<" if order == "<" else ">" if order == ">" else "="
    return np.dtype(text).newbyteorder(known)
