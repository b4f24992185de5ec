"""Signals that ask for an end, as wishes and not as errors; signals after libraries that change how they arrive.

^C, SIGTERM (`docker stop`, `timeout`, a scheduler) and SIGHUP (a closed terminal) are treated alike. Python's handlers
run in the main thread, between two of its instructions. What the main thread cannot be told, because it is inside a
call that does not return, a thread of our own notices: see `own_process`.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import select
import signal
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from threading import Event, Thread, current_thread, main_thread
from time import monotonic, sleep
from types import FrameType
from typing import Any, NoReturn, ParamSpec

Arguments = ParamSpec("Arguments")

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_SS_DISABLE = 2
_SIGNAL_CODE = 128
# A signal that comes again so soon, seconds, is the same wish: `timeout` sends each one to the process and to its
# group, and a terminal that closes is told of by the shell and by the kernel. A finger takes longer. A second SIGHUP
# never counts: nobody can see any more what it would cost.
_ECHO_S = {"SIGINT": 0.05, "SIGTERM": 1.0, "SIGHUP": float("inf")}
# How long the main thread has to end by itself, seconds, where nothing it computed is lost.
_GRACE_S = 1.0
_POLL_S = 0.05
# And where it does not take the second signal as a wish to drop everything.
_KEEPING_S = 10.0


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


class Interrupted(KeyboardInterrupt):
    """A signal asked for an end."""


class _Wishes:
    """What was asked for so far.

    Attributes:
        number: the first signal; 0: none yet.
        raised: whether an exception said so.
        told: whether the user was told that it ends.
        flags, unkept: how many `interrupt_as_flag` and `nothing_kept` are under way.
        of_command: whether they are of a whole command.
        again: the next signal is no echo: its exception was lost.
    """

    def __init__(self) -> None:
        self.number = 0
        self.raised = self.told = False
        self.flags = self.unkept = 0
        self.of_command = self.again = False
        self._last = 0.0

    def counts(self, number: int) -> bool:
        """Take in a signal; whether it is a wish of its own and no echo of the one before."""
        now, since = monotonic(), self._last
        self._last = now
        if not self.number or self.again:
            self.number = self.number or number
            self.again = False
            return True
        return now - since >= _ECHO_S[signal.Signals(number).name]


class _Process:
    """What `own_process` keeps: of the whole process, not of a command."""

    def __init__(self) -> None:
        self.owned = False
        self.terminals: list[int] = []
        self.cleanups: dict[int, Callable[[], None]] = {}
        self.left_behind = False
        self.keeping = False


_wishes = _Wishes()
_process = _Process()


@contextmanager
def interrupt_as_flag() -> Iterator[Event]:
    """The first ^C, SIGTERM or SIGHUP sets the flag; another ^C or SIGTERM raises KeyboardInterrupt."""
    flag = Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not _wishes.counts(number):
            return
        _leave_dead_terminal(number)
        if flag.is_set() or wishes.unkept:
            _raise(frame)
        flag.set()

    with nullcontext(_wishes) if _wishes.of_command else _new_wishes(False) as wishes:
        wishes.flags += 1
        try:
            with _handled(on_signal):
                yield flag
        finally:
            wishes.flags -= 1


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Nothing that is done inside is worth anything unfinished: `interrupt_as_flag` raises KeyboardInterrupt at the
    first signal, and now if it was before.
    """
    wishes = _wishes
    if wishes.flags and wishes.number and current_thread() is main_thread():
        _raise(None)
    wishes.unkept += 1
    try:
        yield
    finally:
        wishes.unkept -= 1


def ends_on_signals(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """For a command that ends the process: a signal ends it in one line, with 128 + its number as exit code.

    What the command does not say itself by leaving with 130 is said here.
    """

    @wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with _new_wishes(True) as wishes, _handled(_on_signal), _lost_exceptions_again():
            try:
                command(*args, **kwargs)
            except SystemExit as leaving:
                if leaving.code == exit_code(signal.SIGINT) and wishes.number:
                    sys.exit(exit_code(wishes.number))
                raise
            except KeyboardInterrupt:
                tell_end()
                sys.exit(exit_code(wishes.number or signal.SIGINT))
            except Exception as error:
                # Libraries make other errors of an interrupt, and a terminal that is gone takes no more lines.
                gone = isinstance(error, OSError) and error.errno in (errno.EIO, errno.EPIPE)
                if not (wishes.raised or (wishes.number and gone)):
                    raise
                tell_end()
                sys.exit(exit_code(wishes.number))

    return wrapped


def exit_code(number: int) -> int:
    """Of a process that a signal ended in good order, as shells tell it."""
    return _SIGNAL_CODE + number


def tell_end() -> None:
    """Say on standard error what ends the process, once."""
    if _wishes.told:
        return
    _wishes.told = True
    number = _wishes.number or signal.SIGINT
    text = f"stopped by {'^C' if number == signal.SIGINT else signal.Signals(number).name}\n"
    with suppress(OSError, ValueError, AttributeError):
        if os.isatty(2):
            # A line that is kept up to date may have hidden the cursor.
            text = f"\r\x1b[K\x1b[?25h{text}"
        try:
            # Another thread may be kept waiting by whoever should read what it writes.
            if current_thread() is not main_thread():
                raise RuntimeError
            sys.stderr.write(text)
            sys.stderr.flush()
        except RuntimeError:
            # Or the main thread was interrupted while it wrote.
            if os.name != "posix" or select.select([], [2], [], 0)[1]:
                os.write(2, text.encode())


def own_process() -> None:
    """For the first lines of a program: from here on signals end the process in one line and at once, until
    `ends_on_signals` takes over, and after it.

    A thread watches over them. Where the main thread does not hear of the first one within a second and no
    `interrupt_as_flag` has results to write, or has not ended a second after another one, the process is ended: a read
    that blocks cannot be ended in another way.
    """
    if current_thread() is not main_thread():
        return
    _process.owned = True
    # The first to be registered is called last.
    atexit.register(_ignore_all)
    _process.terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
    for number in ENDING:
        if _taken(number):
            signal.signal(number, _on_early_signal)
    if os.name == "posix":
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
        os.register_at_fork(after_in_child=_disown)


def leave_process(code: object) -> None:
    """For the last lines of a program: end it now if a thread was left behind in a call that does not return, which
    Python would wait for.
    """
    if not _process.left_behind:
        return
    atexit._run_exitfuncs()
    _end_now(code if isinstance(code, int) else 0 if code is None else 1)


def leave_thread_behind() -> None:
    """A thread is not waited for, neither here nor at the end of the process."""
    _process.left_behind = True


@contextmanager
def results_kept() -> Iterator[None]:
    """Another signal inside has time to be obeyed, for it drops less than everything."""
    _process.keeping = True
    try:
        yield
    finally:
        _process.keeping = False


@contextmanager
def cleaned_up(cleanup: Callable[[], None]) -> Iterator[None]:
    """What happens should the process be ended inside without an exception; called by any thread."""
    key = id(cleanup)
    _process.cleanups[key] = cleanup
    try:
        yield
    finally:
        _process.cleanups.pop(key, None)


@contextmanager
def children_spared() -> Iterator[None]:
    """Processes that `multiprocessing` spawns inside never hear ^C, which a terminal sends to them, too: their parent
    ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    # Starting it later would end what comes next.
    ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """For a process that `multiprocessing` started: it ends when who started it is gone, however that ended."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    Thread(target=watch, name="end with parent", daemon=True).start()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _wishes.counts(number):
        _leave_dead_terminal(number)
        _raise(frame)


def _raise(frame: FrameType | None) -> NoReturn:
    # An interrupted import may end as another error, or as none, or leave half a module to whoever imports it next.
    if _process.owned and not _process.keeping and _importing(frame):
        _end_told()
    _wishes.raised = True
    raise Interrupted


def _on_early_signal(number: int, frame: FrameType | None) -> None:
    if _wishes.counts(number):
        _leave_dead_terminal(number)
        _end_told()


def _ignore_all() -> None:
    """Python gives signals up before it is gone: all is done by then, and the exit code should say so."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_told() -> NoReturn:
    tell_end()
    for cleanup in list(_process.cleanups.values()):
        with suppress(Exception):
            cleanup()
    _end_now(exit_code(_wishes.number or signal.SIGINT))


def _end_now(code: int) -> NoReturn:
    if current_thread() is main_thread():
        for stream in (sys.stdout, sys.stderr):
            # Whatever it meets, the process ends.
            with suppress(Exception):
                stream.flush()
    os._exit(code)


def _leave_dead_terminal(number: int) -> None:
    """Write to nowhere rather than to a terminal that is closed, where each line would be an error."""
    if signal.Signals(number).name != "SIGHUP":
        return
    for descriptor in _process.terminals:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _disown() -> None:
    """In a process that was forked: its parent looks after the signals."""
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        if _taken(number):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def _watch(reader: int) -> None:
    """Of the thread that notices what the main thread does not."""
    heard = _Wishes()
    while data := os.read(reader, 1):
        number, first = data[0], not heard.number
        if number not in ENDING or not heard.counts(number):
            continue
        until = monotonic() + (_KEEPING_S if _process.keeping else _GRACE_S)
        while monotonic() < until and not (first and _wishes.number):
            sleep(_POLL_S)
        if first and (_wishes.number or _wishes.flags):
            continue
        _wishes.number = _wishes.number or heard.number
        _end_told()


@contextmanager
def _new_wishes(of_command: bool) -> Iterator[_Wishes]:
    """What was asked for before is forgotten, and inside it is forgotten afterwards, but in a process that ends."""
    global _wishes
    before, _wishes = _wishes, _Wishes()
    wishes = _wishes
    wishes.of_command = of_command
    try:
        yield wishes
    finally:
        if not _process.owned:
            _wishes = before


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """The ending signals go to a handler, but for those that this process was started to ignore (`nohup`)."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ENDING if _taken(number)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _taken(number: int) -> bool:
    # A shell starts what runs in the background of a script with ^C ignored; who sends one means it all the same.
    # None: set by something else than Python, which cannot be put back.
    earlier = signal.getsignal(number)
    return earlier is not None and (number == signal.SIGINT or earlier is not signal.SIG_IGN)


@contextmanager
def _lost_exceptions_again() -> Iterator[None]:
    """An interrupt that happened to be raised where Python can only report exceptions (in a destructor) is raised once
    more instead.
    """
    before = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            Thread(target=_raise_again, name="signal again", daemon=True).start()
        else:
            before(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _raise_again() -> None:
    # When the main thread has left what made it lose the first one.
    sleep(_POLL_S)
    _wishes.again = True
    number = signal.Signals(_wishes.number or signal.SIGINT)
    if hasattr(signal, "pthread_kill"):
        # Wakes it, too.
        signal.pthread_kill(main_thread().ident or 0, number)
    else:
        interrupt_main(number)


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
