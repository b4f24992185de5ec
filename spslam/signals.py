"""^C as a wish to end, not as an error; signals after libraries that change how they arrive."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_SS_DISABLE = 2


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def interrupt_as_flag() -> Iterator[Event]:
    """The first ^C sets the flag, the second one raises KeyboardInterrupt as ever."""
    flag = Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Whatever happens inside, this thread's alternate signal stack is afterwards what it was before.

    For OpenVINO: its CPU device registers a stack in the thread that loads it. When two such devices end, the older one
    first, the younger one registers the older one's stack again, which is unmapped by then; one that ends in another
    thread unmaps its stack and leaves it registered. The next signal is written to whatever lies there now, for Python
    handles all signals on the alternate stack. A device whose stack is not registered any more changes nothing.

    Does nothing but on Linux; where the stack of before is too small for the registers that are in use now (AMX's tiles
    take 8 kB), signals come on the thread's own stack.
    """
    if sys.platform != "linux":
        yield
        return
    set_stack = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    set_stack(None, ctypes.byref(before))
    try:
        yield
    finally:
        if set_stack(ctypes.byref(before), None) != 0:
            set_stack(ctypes.byref(_SignalStack(None, _SS_DISABLE, 0)), None)
