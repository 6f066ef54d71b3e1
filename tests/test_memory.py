"""Keeping freed memory: asked for where the C library can, harmless elsewhere."""

import ctypes
import platform
import types

import pytest

from p2f_lib import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_keeps_freed_memory():
    assert memory.keep_freed_memory()
    assert memory.keep_freed_memory()  # again is no harm


@pytest.mark.parametrize("library", [types.SimpleNamespace(), None])
def test_other_libraries_are_left_alone(monkeypatch, library):
    def load(name):
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert memory.keep_freed_memory() is False


def test_a_refusal_is_reported(monkeypatch):
    refusing = types.SimpleNamespace(mallopt=lambda option, value: 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: refusing)
    assert memory.keep_freed_memory() is False
