"""The outbox: order, patience while the server is away, bounds, and what becomes of the rest."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from workflows.storage import Folder
from workflows.tracking import operations as op
from workflows.tracking.outbox import Outbox
from workflows.tracking.tracking import KEY_FILE, UNSENT_FILE, Tracking, describe, folder_key


@dataclass
class FakeServer:
    """Takes what operations send; it can be away, and it can refuse."""

    is_away: bool = False
    refuses: str = ""
    got: list[tuple] = field(default_factory=list)
    tries: int = 0

    def take(self, *what: object) -> None:
        self.tries += 1
        if self.is_away:
            raise ConnectionError("nobody there")
        if self.refuses and self.refuses in str(what):
            raise ValueError(f"I do not want {self.refuses}")
        self.got.append(what)


@dataclass(frozen=True)
class Said:
    """An operation of the tests: says a word."""

    word: str
    key: str = "run"

    def send(self, sender: FakeServer) -> None:  # type: ignore[override]
        sender.take(self.word)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    monkeypatch.setattr("workflows.tracking.outbox.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("workflows.tracking.outbox.WAIT_WHILE_CLOSING_S", 0.02)
    monkeypatch.setattr(op.Points, "send", lambda self, sender: sender.take("points", *self.points))
    return FakeServer()


def outbox_to(server: FakeServer, *, most_points: int = 1000, connect: Callable[[], object] | None = None) -> Outbox:
    return Outbox(
        connect or (lambda: server),  # type: ignore[arg-type,return-value]
        is_outage=lambda error: isinstance(error, ConnectionError),
        is_healthy=lambda: not server.is_away,
        most_points=most_points,
    )


def points(*steps: int, key: str = "run") -> op.Points:
    return op.Points(key, [("loss", 1.0, 0, step) for step in steps])


def test_everything_arrives_in_order(server: FakeServer) -> None:
    outbox = outbox_to(server)
    for word in "abc":
        outbox.put(Said(word))
    delivery = outbox.close(5)
    assert server.got == [("a",), ("b",), ("c",)]
    assert (delivery.sent, delivery.unsent, delivery.refused) == (3, (), 0)


def test_what_is_put_while_the_server_is_away_arrives_when_it_is_back(server: FakeServer) -> None:
    server.is_away = True
    outbox = outbox_to(server)
    for word in "abc":
        outbox.put(Said(word))
    time.sleep(0.1)
    assert server.got == []
    assert server.tries > 1
    server.is_away = False
    assert outbox.flush(5)
    assert server.got == [("a",), ("b",), ("c",)]
    assert outbox.close(1).away_s > 0.05


def test_putting_never_waits_for_the_connection(server: FakeServer) -> None:
    gate = threading.Event()

    def connect() -> FakeServer:
        gate.wait(5)
        return server

    outbox = outbox_to(server, connect=connect)
    started = time.monotonic()
    for number in range(100):
        outbox.put(points(number))
    assert time.monotonic() - started < 0.5
    gate.set()
    assert outbox.close(5).unsent == ()


def test_points_of_one_run_travel_together(server: FakeServer) -> None:
    server.is_away = True
    outbox = outbox_to(server)
    outbox.put(Said("start"))
    for step in range(40):
        outbox.put(points(step))
    server.is_away = False
    outbox.close(5)
    sent = [what for what in server.got if what[0] == "points"]
    assert len(sent) <= 3
    assert [point[3] for what in sent for point in what[1:]] == list(range(40))


def test_beyond_the_bound_the_oldest_points_go_and_are_counted(server: FakeServer) -> None:
    server.is_away = True
    outbox = outbox_to(server, most_points=10)
    outbox.put(Said("start"))
    for step in range(6):
        outbox.put(points(*range(step * 4, step * 4 + 4), key=f"run{step}"))
    server.is_away = False
    delivery = outbox.close(5)
    arrived = [point[3] for what in server.got if what[0] == "points" for point in what[1:]]
    assert arrived == list(range(16, 24))
    assert delivery.lost_points == 16
    assert ("start",) in server.got


def test_what_is_refused_is_counted_and_the_rest_goes_on(server: FakeServer) -> None:
    server.refuses = "b"
    outbox = outbox_to(server)
    for word in "abc":
        outbox.put(Said(word))
    delivery = outbox.close(5)
    assert server.got == [("a",), ("c",)]
    assert delivery.refused == 1
    assert "I do not want b" in delivery.reason


def test_an_error_that_stays_while_the_server_is_well_does_not_block_the_line(server: FakeServer) -> None:
    @dataclass(frozen=True)
    class AlwaysFails:
        key: str = "run"

        def send(self, sender: FakeServer) -> None:
            raise ConnectionError("this request alone")

    outbox = outbox_to(server)
    outbox.put(AlwaysFails())  # type: ignore[arg-type]
    outbox.put(Said("after"))
    delivery = outbox.close(5)
    assert server.got == [("after",)]
    assert delivery.refused == 1


def test_closing_gives_up_in_time_and_returns_what_was_not_sent(server: FakeServer) -> None:
    server.is_away = True
    outbox = outbox_to(server)
    outbox.put(Said("a"))
    outbox.put(points(1))
    started = time.monotonic()
    delivery = outbox.close(0.3)
    assert time.monotonic() - started < 2
    assert [type(one) for one in delivery.unsent] == [Said, op.Points]
    assert "nobody there" in delivery.reason


def test_operations_survive_being_kept_as_json() -> None:
    kept = [
        op.StartRun("k", "psreid", "name", 5, "parent", {"a": "b"}),
        op.Parameters("k", {"tau": "0.1"}),
        op.Points("k", [("loss", 0.5, 17, 3)]),
        op.Tags("k", {"a": "b"}),
        op.Inputs("k", [{"name": "frames", "digest": "d", "source": "s"}]),
        op.Upload("k", "/file", "folder"),
        op.EndRun("k", "FINISHED", 9),
        op.RegisterModel("k", "/model", "psreid", "champion", "id", "mAP", 0.5, True, "data"),
    ]
    assert op.from_json(op.to_json(kept)) == kept


def test_a_worse_model_on_the_same_data_is_no_champion() -> None:
    def registered(value: float, *, data: str = "d", higher: bool = True) -> op.RegisterModel:
        return op.RegisterModel("k", "/m", "psreid", "champion", "id", "mAP", value, higher, data)

    champion = registered(0.5)._tags
    assert registered(0.4)._is_worse_than(champion)
    assert not registered(0.5)._is_worse_than(champion)
    assert not registered(0.4, data="other")._is_worse_than(champion)
    assert not registered(0.4, higher=False)._is_worse_than(champion)
    assert registered(0.6, higher=False)._is_worse_than(champion)


def test_a_folder_keeps_its_key(tmp_path: object) -> None:
    folder = Folder(str(tmp_path))
    key = folder_key(folder)
    assert key == folder_key(folder)
    assert folder.exists(KEY_FILE)


def test_tracking_that_is_off_does_nothing(tmp_path: object) -> None:
    tracking = Tracking.off()
    run = tracking.run("x")
    run.figures(1, {"loss": 1.0})
    run.file("a.txt", b"a")
    run.end()
    assert tracking.flush()
    assert tracking.close() == []


def test_what_was_not_sent_is_kept_for_the_next_run(tmp_path: object) -> None:
    folder = Folder(str(tmp_path))
    gone = "http://127.0.0.1:9"  # the discard port: nobody answers
    tracking = Tracking(gone, folder=folder)
    run = tracking.run("x")
    run.figures(1, {"loss": 0.5})
    lines = tracking.close(0.2)
    assert "not sent" in " ".join(lines)
    assert UNSENT_FILE in " ".join(lines)
    kept = op.from_json(folder.read_json(UNSENT_FILE))
    assert [type(one).__name__ for one in kept] == ["StartRun", "Points"]
    again = Tracking(gone, folder=folder)
    assert not folder.exists(UNSENT_FILE)
    again.close(0.2)
    assert len(op.from_json(folder.read_json(UNSENT_FILE))) == 2


def test_the_summary_names_what_went_wrong(server: FakeServer) -> None:
    server.refuses = "b"
    outbox = outbox_to(server)
    outbox.put(Said("b"))
    assert "refused 1" in describe(outbox.close(5), "http://here", None)[0]
