"""Records of trials, ASHA that is continued, the table, the best settings, and the page."""

import re
from html import unescape
from pathlib import Path

import pytest
import yaml

from tests.workflows.sweep_training import TOY, ToyConfig
from workflows.config import load_config
from workflows.ledger import Ledger
from workflows.storage import Folder
from workflows.sweep.config import Asha, SweepConfig
from workflows.sweep.page import render_page, score
from workflows.sweep.papers import published
from workflows.sweep.records import Report, Trial, TrialStore
from workflows.sweep.results import best_settings, print_table, rank, trials_table, write_results
from workflows.sweep.session import ResumedAsha, read_report
from workflows.sweep.step import sweep_identity
from workflows.sweep.timeline import stretches_of

SPACE = {"losses.tau": [0.1, 0.2], "losses.reid": [0.5, 1.0]}


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    return SweepConfig(train="psreid", out=str(tmp_path / "sweep"), settings={"steps": 3}, space=SPACE)


@pytest.fixture
def store(config: SweepConfig) -> TrialStore:
    return TrialStore.open(Ledger.open(Folder(config.out), sweep_identity(config, {})))


def report(step: int, value: float, *, at: float = 0.0) -> Report:
    return Report(step, at or 100.0 + step, {"eval_mAP": value})


def trial(number: int, value: float | None, *, status: str = "finished", **point: float) -> Trial:
    reports = (report(3, value),) if value is not None else ()
    held = {"losses.tau": 0.1, "losses.reid": 1.0} | {f"losses.{name}": one for name, one in point.items()}
    return Trial(f"{number:016x}", number, held, status, (100.0,), 200.0, reports)  # type: ignore[arg-type]


def test_what_a_killed_session_left_is_found_again(config: SweepConfig, store: TrialStore) -> None:
    for number, name in enumerate("abc"):
        store.trials[name] = Trial(name, number, {"losses.tau": 0.1 * (number + 1)})
    store.start(store.trials["a"])
    store.report("a", report(1, 0.3))
    store.report("a", report(2, 0.4))
    store.end("a", "finished", metric=config.metric)
    store.start(store.trials["b"])
    store.report("b", report(1, 0.2))
    again = TrialStore.open(store.ledger)
    assert [(one.trial_id, one.status) for one in again.in_order] == [("a", "finished"), ("b", "running")]
    assert again.trials["a"].value("eval_mAP") == 0.4
    assert again.trials["a"].reports == store.trials["a"].reports
    assert again.trials["b"].reports[0].figures == {"eval_mAP": 0.2}
    continued = again.start(again.trials["b"])
    assert len(continued.started_s) == 2


def test_a_trial_that_goes_back_to_its_checkpoint_tells_those_steps_anew() -> None:
    held = Trial("a", 0, {}).reported(report(1, 0.1)).reported(report(2, 0.2)).reported(report(3, 0.3))
    again = held.reported(report(2, 0.25))
    assert [(one.step, one.figures["eval_mAP"]) for one in again.reports] == [(1, 0.1), (2, 0.25)]


def test_figures_of_one_step_join() -> None:
    held = Trial("a", 0, {}).reported(Report(2, 1.0, {"loss": 3.0})).reported(Report(2, 2.0, {"eval_mAP": 0.5}))
    assert held.reports == (Report(2, 2.0, {"loss": 3.0, "eval_mAP": 0.5}),)


def test_what_was_told_of_a_step_is_no_news() -> None:
    held = Trial("a", 0, {}).reported(Report(2, 1.0, {"loss": 3.0, "eval_mAP": 0.5}))
    assert held.news(Report(2, 9.0, {"loss": 3.0, "eval_top1": 1.0})).figures == {"eval_top1": 1.0}
    assert held.news(Report(2, 9.0, {"loss": 2.5})).figures == {"loss": 2.5}
    assert held.news(Report(3, 9.0, {"loss": 3.0})).figures == {"loss": 3.0}


def test_a_failed_trial_has_no_value_and_can_be_forgotten(store: TrialStore) -> None:
    store.trials["a"] = Trial("a", 0, {})
    store.start(store.trials["a"])
    store.report("a", report(1, 0.3))
    failed = store.end("a", "failed", metric="eval_mAP", error="no luck")
    assert failed.value("eval_mAP") is None
    assert TrialStore.open(store.ledger).trials["a"].error == "no luck"
    store.forget("a")
    assert not TrialStore.open(store.ledger).trials["a"].has_ended


def test_a_value_that_is_no_number_is_none() -> None:
    assert trial(0, float("nan")).value("eval_mAP") is None


def test_tune_results_become_reports_of_the_training_alone() -> None:
    told = read_report({"step": 4, "loss": 0.5, "training_iteration": 2, "done": False, "config": {}, "pid": 7})
    assert told is not None
    assert (told.step, told.figures) == (4, {"loss": 0.5})
    assert read_report({"training_iteration": 1, "done": True}) is None


def test_asha_that_is_continued_decides_as_if_it_had_not_stopped(config: SweepConfig) -> None:
    asked = config.model_copy(update={"asha": Asha(grace_steps=1, most_steps=9, reduction_factor=3)})
    history = [Trial(str(n), n, {}, "finished", reports=(report(1, value),)) for n, value in enumerate((0.5, 0.6, 0.7))]

    def decision(earlier: list[Trial], value: float) -> str:
        from types import SimpleNamespace

        asha, new = ResumedAsha(asked, earlier), SimpleNamespace(trial_id="new")
        asha.on_trial_add(None, new)
        return str(asha.on_trial_result(None, new, {"step": 1, "eval_mAP": value}))

    assert decision(history, 0.55) == "STOP"
    assert decision(history, 0.75) == "CONTINUE"
    assert decision([], 0.01) == "CONTINUE"


def test_the_best_come_first_and_a_stopped_trial_never_wins(config: SweepConfig) -> None:
    trials = [trial(0, 0.3), trial(1, 0.9, status="stopped"), trial(2, None, status="failed"), trial(3, 0.5)]
    assert [one.number for one in rank(config, trials)] == [3, 0, 1, 2]
    assert [one.number for one in rank(config.model_copy(update={"mode": "min"}), trials)] == [0, 3, 1, 2]


def test_the_table_has_a_column_for_each_setting(config: SweepConfig) -> None:
    ranked = rank(config, [trial(0, 0.3, tau=0.2), trial(1, None, status="failed")])
    table = trials_table(config, ranked)
    assert table.column_names[:5] == ["rank", "trial", "trial_id", "losses.tau", "losses.reid"]
    assert table["losses.tau"].to_pylist() == [0.2, 0.1]
    assert table["eval_mAP"].to_pylist() == [0.3, None]
    lines = print_table(config, ranked)
    assert len(lines) == 3
    assert "failed" in lines[2]


def test_the_best_settings_are_what_training_takes(config: SweepConfig) -> None:
    text = best_settings(config, TOY, trial(3, 0.5, tau=0.2), Folder(config.out))
    chosen = load_config(ToyConfig, flags=yaml.safe_load(text))
    assert chosen.losses.tau == 0.2
    assert chosen.steps == 3
    assert chosen.out.endswith("/best")


def test_results_of_a_sweep_without_a_value_are_still_written(config: SweepConfig, store: TrialStore) -> None:
    store.trials["x"] = trial(0, None, status="failed")
    results = write_results(config, TOY, store, Folder(config.out))
    assert results.best is None
    assert b"No trial came to a eval_mAP" in Folder(config.out).read_bytes("sweep.html")


def test_the_page_stands_alone_and_escapes(config: SweepConfig) -> None:
    evil = config.model_copy(update={"settings": {"note": "</script><script>alert(1)</script>"}})
    failed = Trial("f", 2, {"losses.tau": 0.2, "losses.reid": 1.0}, "failed", (1.0,), 2.0, (), "<img src=x onerror=1>")
    trials = [trial(0, 0.3, tau=0.1), trial(1, 0.5, tau=0.2, reid=0.5), failed]
    html = render_page(evil, trials, trials[1]).decode()
    assert "<img" not in html
    assert "<script>alert" not in html
    assert not re.search(r"<[^>]*(?:src|href)\s*=|url\(|@import|https?://", html)
    assert "default-src 'none'" in unescape(html)
    assert html.count("<svg") >= 6
    assert "Table V" in html


def test_a_pages_colours_go_from_worst_to_best(config: SweepConfig) -> None:
    trials = [trial(0, 0.2), trial(1, 0.6), trial(2, 0.4)]
    assert [round(one.share, 2) for one in score(config, trials)] == [0, 1, 0.5]
    less_is_better = config.model_copy(update={"mode": "min"})
    assert [round(one.share, 2) for one in score(less_is_better, trials)] == [1, 0, 0.5]


def test_words_and_ranges_can_be_swept_and_drawn(tmp_path: Path) -> None:
    config = SweepConfig(
        out=str(tmp_path), settings={}, search="random", trials=2,
        space={"losses.negatives": ["hard", "literal"], "rate": {"low": 1e-5, "high": 1e-2, "scale": "log"}},  # type: ignore[dict-item]
    )  # fmt: skip
    points = [{"losses.negatives": "hard", "rate": 1e-4}, {"losses.negatives": "literal", "rate": 3e-3}]
    trials = [Trial(str(n), n, point, "finished", (1.0,), 9.0, (report(1, 0.2 + n),)) for n, point in enumerate(points)]
    html = render_page(config, trials, trials[1]).decode()
    assert "literal" in html


def test_a_killed_session_lasts_until_its_last_report() -> None:
    held = Trial("a", 0, {}, "finished", (100.0, 500.0), 560.0, (report(1, 0.1, at=110.0), report(2, 0.2, at=520.0)))
    assert [(one.start_s, one.end_s, one.was_cut) for one in stretches_of(held)] == [
        (100, 110, True),
        (500, 560, False),
    ]


def test_the_papers_are_quoted_as_printed() -> None:
    reid = published("psreid", "losses.reid")
    assert reid is not None
    assert reid.points["mAP"] == [(0.0, 50.1), (1.0, 65.5)]
    alpha, beta = published("irm", "losses.alpha"), published("irmpp", "losses.beta")
    assert alpha is not None
    assert alpha.chosen == 3.0
    assert beta is not None
    assert (beta.chosen, beta.tried) == (5.0, (0.5, 20.0))
    assert published("psreid", "seed") is None
