"""Signals that end the process: they are handled as requests, not as errors.

^C, SIGTERM (`docker stop`, `timeout`, a scheduler) and SIGHUP (a closed terminal) are treated in
the same way. Python's handlers run in the main thread, between two of its instructions. If the main
thread is inside a call that does not return, a separate thread handles the signal: see
`own_process`. The module also repairs signal handling after libraries that change it.
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

# Signals that end the process.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# Flag of `sigaltstack` for no alternate stack.
_SS_DISABLE = 2
# Exit code of a process that a signal ended, minus the number of the signal.
_SIGNAL_CODE = 128
# Seconds within which a repeated signal is an echo of the first: `timeout` signals the process and
# its group, and shell and kernel both report a closed terminal. Another SIGHUP is always an echo,
# as nobody can see what a second signal would discard.
_ECHO_S = {"SIGINT": 0.05, "SIGTERM": 1.0, "SIGHUP": float("inf")}
# Seconds that the main thread has to end by itself after a signal.
_GRACE_S = 1.0
# Seconds between two looks at the main thread.
_POLL_S = 0.05
# Seconds that it has while results are kept, see `results_kept`.
_KEEPING_S = 10.0


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


class Interrupted(KeyboardInterrupt):
    """A signal requested the end of the process."""


class _Wishes:
    """The signals received until now.

    Attributes:
        number: The first signal; 0: none yet.
        raised: Whether an exception was raised for it.
        reported: whether the message about the end was printed.
        flags: Number of active `interrupt_as_flag` contexts.
        unkept: Number of active `nothing_kept` contexts.
        of_command: Whether the state belongs to a whole command.
        again: The next signal is no echo, because the exception of the last one was lost.
    """

    def __init__(self) -> None:
        self.number = 0
        self.raised = self.reported = False
        self.flags = self.unkept = 0
        self.of_command = self.again = False
        self._last = 0.0

    def counts(self, number: int) -> bool:
        """Register a signal; return whether it is a new request and no echo of the last one."""
        now, since = monotonic(), self._last
        self._last = now
        if not self.number or self.again:
            self.number = self.number or number
            self.again = False
            return True
        return now - since >= _ECHO_S[signal.Signals(number).name]


class _Process:
    """State of the whole process, not of a command; see `own_process`."""

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
    """Set a flag at the first ^C, SIGTERM or SIGHUP; raise KeyboardInterrupt at another signal.

    Another SIGHUP is ignored.
    """
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
    """Let `interrupt_as_flag` raise KeyboardInterrupt at the first signal within the context.

    Use it for work that is useless unless it is finished. It raises at once if a signal came
    before.
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
    """Decorate a command that ends the process: a signal ends it with one line of output.

    The exit code is 128 + the number of the signal. A command that exits with 130 has printed the
    line itself.
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
                # Libraries convert an interrupt to other errors. A closed terminal raises EIO, a
                # closed pipe EPIPE.
                gone = isinstance(error, OSError) and error.errno in (errno.EIO, errno.EPIPE)
                if not (wishes.raised or (wishes.number and gone)):
                    raise
                tell_end()
                sys.exit(exit_code(wishes.number))

    return wrapped


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handling of SIGTERM at the end of the context.

    The logging library of pycolmap takes it when it is imported: its own handler prints a stack
    trace and ends the process at once.
    """
    try:
        yield
    finally:
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, handler)


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal ended, following the convention of shells."""
    return _SIGNAL_CODE + number


def tell_end() -> None:
    """Print to standard error, once, which signal ends the process."""
    if _wishes.reported:
        return
    _wishes.reported = True
    number = _wishes.number or signal.SIGINT
    text = f"stopped by {'^C' if number == signal.SIGINT else signal.Signals(number).name}\n"
    with suppress(OSError, ValueError, AttributeError):
        if os.isatty(2):
            # A progress display may have hidden the cursor.
            text = f"\r\x1b[K\x1b[?25h{text}"
        try:
            # Other threads must not block on a slow reader of standard error.
            if current_thread() is not main_thread():
                raise RuntimeError
            sys.stderr.write(text)
            sys.stderr.flush()
        except RuntimeError:
            # Another thread, or the main thread was interrupted during a write.
            if os.name != "posix" or select.select([], [2], [], 0)[1]:
                os.write(2, text.encode())


def own_process() -> None:
    """Let signals end the process at once, with one line of output; call it first in a program.

    `ends_on_signals` overrides it during a command. A thread watches the signals. It ends the
    process if the main thread does not handle the first signal within a second and no
    `interrupt_as_flag` is active, or if the process still runs a second after another signal:
    nothing else can end a read that blocks.
    """
    if current_thread() is not main_thread():
        return
    _process.owned = True
    # The function registered first is called last.
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
    """End the process now if a thread was left behind; call it last in a program.

    Python would wait for the thread, which may be inside a call that does not return.
    """
    if not _process.left_behind:
        return
    atexit._run_exitfuncs()
    _end_now(code if isinstance(code, int) else 0 if code is None else 1)


def leave_thread_behind() -> None:
    """Leave a thread running: the end of the process will not wait for it."""
    _process.left_behind = True


@contextmanager
def results_kept() -> Iterator[None]:
    """Give the main thread more time to end after another signal, to keep part of the results."""
    _process.keeping = True
    try:
        yield
    finally:
        _process.keeping = False


@contextmanager
def cleaned_up(cleanup: Callable[[], None]) -> Iterator[None]:
    """Call `cleanup`, in any thread, if the process ends in the context without an exception."""
    key = id(cleanup)
    _process.cleanups[key] = cleanup
    try:
        yield
    finally:
        _process.cleanups.pop(key, None)


@contextmanager
def children_spared() -> Iterator[None]:
    """Let processes that `multiprocessing` spawns within the context ignore ^C.

    A terminal sends ^C to them, too, but their parent ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    # Started later, within the context, the tracker would unblock SIGINT again.
    ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, as soon as its parent has ended."""
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
    # An interrupted import can raise another error, or none, and leave an incomplete module.
    if _process.owned and not _process.keeping and _importing(frame):
        _end_reported()
    _wishes.raised = True
    raise Interrupted


def _on_early_signal(number: int, frame: FrameType | None) -> None:
    if _wishes.counts(number):
        _leave_dead_terminal(number)
        _end_reported()


def _ignore_all() -> None:
    """Ignore signals at exit: Python resets its handlers before it ends, and the work is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_reported() -> NoReturn:
    tell_end()
    for cleanup in list(_process.cleanups.values()):
        with suppress(Exception):
            cleanup()
    _end_now(exit_code(_wishes.number or signal.SIGINT))


def _end_now(code: int) -> NoReturn:
    if current_thread() is main_thread():
        for stream in (sys.stdout, sys.stderr):
            # The process ends in any case.
            with suppress(Exception):
                stream.flush()
    os._exit(code)


def _leave_dead_terminal(number: int) -> None:
    """Redirect output from a closed terminal to the null device: each line would be an error."""
    if signal.Signals(number).name != "SIGHUP":
        return
    for descriptor in _process.terminals:
        if not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _disown() -> None:
    """Reset signals in a forked process: its parent handles them."""
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        if _taken(number):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def _watch(reader: int) -> None:
    """Watch the signals in a thread and end the process if the main thread does not."""
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
        _end_reported()


@contextmanager
def _new_wishes(of_command: bool) -> Iterator[_Wishes]:
    """Use a new signal state within the context; the old one returns unless the process ends."""
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
    """Handle the ending signals within the context, except those ignored at start (`nohup`)."""
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
    # A shell starts background processes of a script with SIGINT ignored, but a SIGINT that someone
    # sends must count. None: the handler is not from Python and could not be restored.
    earlier = signal.getsignal(number)
    return earlier is not None and (number == signal.SIGINT or earlier is not signal.SIG_IGN)


@contextmanager
def _lost_exceptions_again() -> Iterator[None]:
    """Raise an interrupt again if Python only reported it, as in a destructor."""
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
    # Wait until the main thread has left the code that lost the exception.
    sleep(_POLL_S)
    _wishes.again = True
    number = signal.Signals(_wishes.number or signal.SIGINT)
    if hasattr(signal, "pthread_kill"):
        # This also interrupts a system call of the main thread.
        signal.pthread_kill(main_thread().ident or 0, number)
    else:
        interrupt_main(number)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restore this thread's alternate signal stack at the end of the context (Linux only).

    OpenVINO needs this: its CPU device registers an alternate stack in the thread that loads it.
    If two devices end, the older first, the newer registers the stack of the older again, which is
    unmapped. A device that ends in another thread unmaps its stack but leaves it registered.
    Python handles all signals on the alternate stack, so the next signal would overwrite other
    memory. A device whose stack is no longer registered changes nothing.

    If the old stack is too small for the registers in use now (AMX tiles take 8 kB), signals are
    handled on the thread's own stack.
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
