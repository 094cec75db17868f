"""Seconds spent in parts of a model, by wrapping some of its methods for a while. Only for measuring."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Stopwatch:
    """Seconds by part; time in a part that was entered from another counts for the inner one alone."""

    clock: Clock
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[float] = field(default_factory=list)

    @contextmanager
    def watch(self, parts: Sequence[tuple[object, str, str]]) -> Iterator[None]:
        """Times each (owner, method, part) while the block runs."""
        for owner, method, part in parts:
            setattr(owner, method, self._timed(getattr(owner, method), part))
        try:
            yield
        finally:
            for owner, method, _ in parts:
                delattr(owner, method)  # the class's own method shows again

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._open.append(0.0)
            started = self._now()
            try:
                return method(*args, **kwargs)
            finally:
                spent = self._now() - started
                self.seconds[part] += spent - self._open.pop()
                if self._open:
                    self._open[-1] += spent

        return timed

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock()
