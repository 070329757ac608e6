"""Ends a command's work on a signal, in order, instead of dropping it.

Without it Ctrl-C or a service manager's SIGTERM would leave a container running and a bill unread.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from orchestrator.errors import SessionCancelledError

_SHELL_OFFSET = 128  # how shells number an end by a signal
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_T = TypeVar("_T")


class SignalledError(SessionCancelledError):
    """The user or the system asked for the end, and everything has been put away."""

    def __init__(self, number: signal.Signals) -> None:
        """Keeps which signal it was."""
        super().__init__(f"ended by {number.name}")
        self.exit_code = _SHELL_OFFSET + number


def run_until_signal(work: Coroutine[Any, Any, _T], *, note: Callable[[str], None]) -> _T:
    """Runs `work` in an event loop of its own, and cancels it on SIGINT, SIGTERM or SIGHUP.

    Signals that this process was started to ignore stay ignored: a shell's background job, `nohup`.

    Args:
        work: What to do. Once cancelled, it is waited for: it destroys what it started.
        note: Told in a sentence what a signal does.

    Raises:
        SignalledError: A signal came, and `work` has ended.
    """
    return asyncio.run(_guard(work, note))


async def _guard(work: Coroutine[Any, Any, _T], note: Callable[[str], None]) -> _T:
    loop, doing = asyncio.get_running_loop(), asyncio.ensure_future(work)
    received: list[signal.Signals] = []
    watched = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def end(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            note(f"{number.name}: ending the run and destroying its sandbox …")
            doing.cancel()
            return
        note(f"{number.name}: still ending. The next one drops everything at once.")
        for watched_number in watched:
            loop.remove_signal_handler(watched_number)
            signal.signal(watched_number, signal.SIG_DFL)

    for number in watched:
        loop.add_signal_handler(number, end, number)
    try:
        await asyncio.wait({doing})
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
    if received:
        if not doing.cancelled():
            doing.exception()  # marks it as seen: the end was asked for, however it came about
        raise SignalledError(received[0])
    return doing.result()
