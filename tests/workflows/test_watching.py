"""Figures of a running step: sums, log line, Ray's metrics endpoint, the file beside the output, the dashboard."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from tests.faults.toy import run_toy
from workflows.progress import Price, Progress
from workflows.storage import Folder
from workflows.watching import watch as watch_module
from workflows.watching.figures import Capacity, Committed, StageUse, StepFigures, StepTally
from workflows.watching.metrics import METRICS
from workflows.watching.watch import read_progress

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "psreid.json"
USES = {"Decode": StageUse(1.0, 0.0), "Judge": StageUse(2.0, 1.0)}


def tally(**changes: object) -> StepTally:
    settings = {
        "shards_total": 10, "shards_done": 2, "uses": USES, "now_s": 100.0, "earlier_s": 1800.0,
        "capacity": Capacity(cpus=8.0, gpus=2.0, price_per_hour=4.0, currency="EUR"),
    }  # fmt: skip
    return StepTally("judged", **{**settings, **changes})


def test_rates_queues_and_shares_follow_from_the_trails_of_shards() -> None:
    watched = tally()
    for second in (10.0, 20.0):
        trail = [["Decode", 100, 4.0, 0.0], ["Judge", 90, 10.0, 30.0]]
        watched.add(Committed(90, 100, {"no_image": 1}, trail), 100.0 + second)
    figures = watched.figures(120.0)
    assert (figures.shards_done, figures.rows, figures.rows_read, figures.unit) == (4, 180, 200, "pairs")
    assert figures.per_s == pytest.approx(10.0)
    assert figures.stages["Judge"].queue == pytest.approx(3.0)  # 60 s waited in 20 s
    assert figures.stages["Judge"].busy_workers == pytest.approx(1.0)
    assert figures.cpu_share == pytest.approx((8 * 1 / 20 + 20 * 2 / 20) / 8)
    assert figures.gpu_share == pytest.approx(0.5)
    assert figures.remaining_s == pytest.approx(60.0)
    assert figures.cost == pytest.approx(4.0 * (1800 + 20) / 3600)
    assert figures.line() == (
        "judged: 4 of 10 shards; 200 pairs in 20 s, 10.0 pairs/s; shards waiting: Judge 3.0; "
        "quarantined 2 (no_image 2); CPU 30 %, GPU 50 %; 2.02 EUR so far; about 60 s left"
    )


def test_rates_are_of_the_last_minutes_and_nothing_is_expected_before_the_first_shard() -> None:
    watched = tally(capacity=Capacity(cpus=8.0))
    assert watched.figures(101.0).remaining_s is None
    assert (watched.figures(101.0).cost, watched.figures(101.0).gpu_share) == (None, None)
    watched.add(Committed(1, 1000, {}, []), 110.0)
    assert watched.figures(110.0 + 300.0).per_s == 0.0


class Watcher(Progress):
    """Keeps what it is told once a minute."""

    price = Price(3.6, "USD")

    def __init__(self) -> None:
        self.seen: list[StepFigures] = []

    def figures(self, figures: StepFigures) -> None:
        self.seen.append(figures)


@pytest.mark.usefixtures("ray_cluster")
def test_a_step_on_ray_exports_its_figures_and_writes_them_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PUBLISH_EVERY_S", "STORE_EVERY_S", "SAY_EVERY_S"):
        monkeypatch.setattr(watch_module, name, 0.2)
    out, watcher = str(tmp_path / "out"), Watcher()
    manifest = run_toy(out, shards=6, progress=watcher, source={"raise_at": [3]}, square={"sleep_s": 0.2})
    stored = read_progress(Folder(out))
    assert (stored["state"], stored["shards_done"], stored["shards_total"]) == ("done", 6, 6)
    assert stored["rows_read"] == manifest.rows_read and stored["quarantine_reasons"] == {"ValueError": 1}
    assert watcher.seen and watcher.seen[-1].cost is not None and watcher.seen[-1].cost > 0
    assert any(figures.stages["Square"].busy_workers > 0 for figures in watcher.seen)

    # Ray exports now and then: the page may show the figures of a moment ago first
    exported = wait_for(rf'^ray_psreid_rows_total{{.*output="{re.escape(out)}".*}} {float(manifest.rows_read)}$')
    names = set(re.findall(r"^ray_(psreid_\w+?)(?:_total)?\{", exported, re.MULTILINE))
    assert set(METRICS) - names == {"psreid_gpu_share"}  # this Ray has no GPU
    (rows,) = [line for line in exported.splitlines() if line.startswith("ray_psreid_rows_total{") and out in line]
    assert float(rows.rpartition(" ")[2]) == manifest.rows_read and 'unit="rows"' in rows


def wait_for(line: str) -> str:
    """The page of Ray's metrics endpoint, once a line of it matches."""
    import ray

    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with urllib.request.urlopen(address, timeout=10) as answer:
            page = answer.read().decode()
        if re.search(line, page, re.MULTILINE):
            return page
        time.sleep(0.5)
    pytest.fail(f"{address} never showed {line}")


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_on_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    texts += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    shown = set()
    for name in re.findall(r"\bray_(\w+)", " ".join(texts)):
        metric = METRICS[name.removesuffix("_total")]
        assert name.endswith("_total") == (metric.kind == "counter"), f"Ray exports {name} under another name"
        shown.add(metric.name)
    assert shown == set(METRICS)
    labels = set(re.findall(r"by \(([\w, ]+)\)", " ".join(texts)))
    known = {"step", "output"} | {tag for metric in METRICS.values() for tag in metric.tags}
    assert {name.strip() for group in labels for name in group.split(",")} <= known
