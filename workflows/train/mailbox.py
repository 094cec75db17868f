"""From the workers to the driver while they train: what they tell, and who is told.

A worker posts and goes on; a thread of the driver collects. Ray Train's own reports stop all workers until its
controller has come by, so they are kept for what Ray Tune needs.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from workflows.train.listener import TrainingListener

COLLECT_EVERY_S = 0.5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """One thing that a worker tells."""

    kind: Literal["step", "evaluation", "failure", "trouble"]
    step: int = 0
    metrics: Mapping[str, float | str] | None = None
    error: BaseException | None = None
    text: str = ""


class Mailbox:
    """The Ray actor in between."""

    def __init__(self) -> None:
        self._waiting: list[Message] = []
        self._has_failed = False

    def post(self, message: Message) -> None:
        self._has_failed = self._has_failed or message.kind == "failure"
        self._waiting.append(message)

    def has_failed(self) -> bool:
        """Whether a worker told a failure that trying again cannot mend."""
        return self._has_failed

    def take(self) -> list[Message]:
        taken, self._waiting = self._waiting, []
        return taken


def report(metrics: Mapping[str, float]) -> None:
    """Tells Ray Train, and with it Ray Tune, figures of a step; every worker must, and waits for the others."""
    import ray.train

    ray.train.report(dict(metrics))


def open_mailbox() -> Any:
    """A mailbox actor on the driver's node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()


class Audience:
    """The listeners; one that raises is left out from then on."""

    def __init__(self, listeners: Sequence[TrainingListener]) -> None:
        self._listeners = list(listeners)

    def tell(self, call: Callable[[TrainingListener], None]) -> None:
        for listener in list(self._listeners):
            try:
                call(listener)
            except Exception as error:
                logger.warning("%s hears no more of this run: %s", type(listener).__name__, error)
                self._listeners.remove(listener)


class Collector:
    """Collects messages in a thread of its own and passes them on; remembers the first failure."""

    def __init__(
        self, mailbox: Any, audience: Audience, *, on_step: Callable[[int], None], say: Callable[[str], None]
    ) -> None:
        self._mailbox, self._audience, self._on_step, self._say = mailbox, audience, on_step, say
        self.failure: BaseException | None = None
        self._collecting = threading.Lock()

    @contextmanager
    def running(self, first: Callable[[], None]) -> Iterator[None]:
        """`first` is called in the collecting thread before anything else."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop, first), name="psreid-train", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def look_for_failure(self) -> BaseException | None:
        """The first failure that a worker told, also one that was not collected yet."""
        with self._collecting:
            self._collect()
        return self.failure

    def _run(self, stop: threading.Event, first: Callable[[], None]) -> None:
        first()
        while not stop.wait(COLLECT_EVERY_S):
            with self._collecting:
                self._collect()
        with self._collecting:
            self._collect()

    def _collect(self) -> None:
        import ray

        try:
            messages: list[Message] = ray.get(self._mailbox.take.remote())
        except Exception as error:
            logger.warning("the workers' messages cannot be read: %s", error)
            return
        for message in messages:
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        metrics: Any = message.metrics or {}
        if message.kind == "failure":
            self.failure = self.failure or message.error
        elif message.kind == "trouble":
            self._say(message.text)
        elif message.kind == "step":
            self._on_step(message.step)
            self._audience.tell(lambda listener: listener.on_step(message.step, metrics))
        else:
            self._audience.tell(lambda listener: listener.on_evaluation(message.step, metrics))
