"""Ctrl-C and SIGTERM: who hears of them for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_interrupt(handler: Callable[[int, object], None]) -> Iterator[None]:
    """`handler` hears of SIGINT and SIGTERM, except of what was ignored when the program started.

    A shell without job control starts `command &` with SIGINT ignored, and Ctrl-C is not for it.
    Only the main thread can be told of signals: in any other nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for kept, earlier in before.items():
            signal.signal(kept, earlier)
