"""The alternate signal stack is the same before and after OpenVINO is loaded."""

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spslam.process.signals import signal_stack_kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stack_t is that of Linux")
SS_DISABLE = 2


class Stack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def registered() -> tuple[int | None, int]:
    """Address and size of the alternate signal stack of this thread; (None, 0) without one."""
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.size


def register(stack: Stack) -> None:
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread with a signal stack of its own."""
    errors: list[BaseException] = []

    def caught() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    for error in errors:
        raise error


@pytest.mark.parametrize("size", [0, 1 << 16])
def test_the_signal_stack_is_restored(size: int) -> None:
    memory, other = ctypes.create_string_buffer(size or 1), ctypes.create_string_buffer(1 << 17)

    def work() -> None:
        if size:
            register(Stack(ctypes.addressof(memory), 0, size))
        before = registered()
        with pytest.raises(ValueError, match="inside"), signal_stack_kept():
            register(Stack(ctypes.addressof(other), 0, len(other)))
            raise ValueError("inside")
        assert registered() == before
        assert before[1] == size
        with signal_stack_kept():
            register(Stack(None, SS_DISABLE, 0))
        assert registered() == before
        register(Stack(None, SS_DISABLE, 0))

    in_thread(work)


def test_a_signal_stack_that_has_become_too_small_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a thread whose process has started to use AMX."""
    memory, other = ctypes.create_string_buffer(1 << 16), ctypes.create_string_buffer(1 << 17)
    library = ctypes.CDLL(None)

    class Library:
        @staticmethod
        def sigaltstack(new: Any, old: Any) -> int:
            if new is not None:
                given = ctypes.cast(new, ctypes.POINTER(Stack)).contents
                if given.size == len(memory):
                    return -1
            return int(library.sigaltstack(new, old))

    def work() -> None:
        register(Stack(ctypes.addressof(memory), 0, len(memory)))
        with monkeypatch.context() as patch:
            patch.setattr(ctypes, "CDLL", lambda name: Library)
            with signal_stack_kept():
                library.sigaltstack(
                    ctypes.byref(Stack(ctypes.addressof(other), 0, len(other))), None
                )
        assert registered() == (None, 0)

    in_thread(work)
