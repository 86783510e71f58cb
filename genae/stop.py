"""A request to stop, and what heeds it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(RuntimeError):
    """Work was asked to stop, and did so where it can go on from."""


class Stop:
    """A request to stop, made by a signal or by another thread; heeded after the step, or the metric, under way."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self, *signals: signal.Signals) -> Iterator["Stop"]:
        """While this lasts, the signals ask to stop."""

        def ask(_number: int, _frame: object) -> None:
            self.requested = True

        before = {number: signal.signal(number, ask) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
