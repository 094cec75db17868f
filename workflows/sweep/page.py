"""The page of a sweep: one file that loads nothing, readable without scripts, every text escaped."""

import base64
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
import yaml
from markupsafe import Markup

from workflows.sweep import charts
from workflows.sweep.charts import Scored
from workflows.sweep.config import SweepConfig
from workflows.sweep.papers import Published, published
from workflows.sweep.records import Trial
from workflows.sweep.svg import short
from workflows.sweep.timeline import stretches_of, timeline

MOST_HEAT_MAPS = 6


@dataclass(frozen=True)
class SettingView:
    """One varied setting: our curve, and the paper's."""

    name: str
    chart: Markup
    paper: Published | None
    paper_chart: Markup | None


@dataclass(frozen=True)
class RowView:
    """One line of the table."""

    number: int
    status: str
    point: Sequence[str]
    value: str
    step: str
    seconds: str
    error: str
    share: str


def render_page(config: SweepConfig, trials: Sequence[Trial], best: Trial | None) -> bytes:
    """The page as UTF-8. `trials` in order of their numbers."""
    scored = score(config, trials)
    style, script = _part("page.css"), _part("page.js")
    html = _template().render(
        config=config,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        counts={
            status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped", "failed")
        },
        trials=trials,
        best=next((one for one in scored if best is not None and one.trial.number == best.number), None),
        short=short,
        interruptions=sum(len(trial.started_s) > 1 for trial in trials),
        busy=_duration(sum(one.end_s - one.start_s for trial in trials for one in stretches_of(trial))),
        settings=[_setting(config, name, scored) for name in config.space] if scored else [],
        heat_maps=_heat_maps(config, scored),
        parallel=charts.parallel(config.space, scored, config.metric) if scored else None,
        learning=_learning(config, scored),
        timeline=timeline(trials, scored, is_higher_better=config.mode == "max") if trials else None,
        rows=_rows(config, trials, scored),
        asked=yaml.safe_dump(config.model_dump(exclude={"tracking_uri"}), sort_keys=False, allow_unicode=True),
    )
    return html.encode()


def score(config: SweepConfig, trials: Sequence[Trial]) -> list[Scored]:
    """The trials that came to a value, each with its place between the worst and the best."""
    valued = [(trial, value) for trial in trials if (value := trial.value(config.metric)) is not None]
    if not valued:
        return []
    low, high = min(value for _, value in valued), max(value for _, value in valued)
    scored = []
    for trial, value in valued:
        share = (value - low) / (high - low) if high > low else 1.0
        share = share if config.mode == "max" else 1.0 - share if high > low else 1.0
        point = ", ".join(f"{name} {short(held)}" for name, held in trial.point.items())
        title = f"trial {trial.number}: {config.metric} {value:.4g} with {point} ({trial.status})"
        scored.append(Scored(trial, value, share, title))
    return scored


def _setting(config: SweepConfig, name: str, scored: Sequence[Scored]) -> SettingView:
    paper = published(config.train, name)
    chart = charts.response(name, config.space[name], scored, config.metric, paper, best=config.mode == "max")
    return SettingView(name, chart, paper, charts.papers_curve(paper) if paper is not None and paper.points else None)


def _heat_maps(config: SweepConfig, scored: Sequence[Scored]) -> list[tuple[str, Markup]]:
    """One for each pair of listed settings; none where there is nothing to compare."""
    listed = [name for name, axis in config.space.items() if isinstance(axis, list) and len(axis) > 1]
    pairs = list(itertools.combinations(listed, 2))[:MOST_HEAT_MAPS]
    return [(" × ".join(pair), charts.heat_map(pair, config.space, scored)) for pair in pairs] if scored else []


def _learning(config: SweepConfig, scored: Sequence[Scored]) -> Markup | None:
    told = max((sum(config.metric in report.figures for report in one.trial.reports) for one in scored), default=0)
    return charts.learning(scored, config.metric) if told > 1 else None


def _rows(config: SweepConfig, trials: Sequence[Trial], scored: Sequence[Scored]) -> list[RowView]:
    by_number = {one.trial.number: one for one in scored}
    ranked = sorted(
        trials, key=lambda trial: (-by_number[trial.number].share if trial.number in by_number else 1.0, trial.number)
    )
    rows = []
    for trial in ranked:
        one = by_number.get(trial.number)
        rows.append(
            RowView(
                number=trial.number,
                status=trial.status,
                point=[short(trial.point[name]) for name in config.space],
                value=f"{one.value:.4f}" if one else "–",
                step=str(trial.reports[-1].step) if trial.reports else "–",
                seconds=_duration(sum(part.end_s - part.start_s for part in stretches_of(trial))),
                error=trial.error,
                share=f"{one.share * 100:.0f}%" if one else "0%",
            )
        )
    return rows


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _policy(style: str, script: str) -> str:
    """A content policy under which the page can load nothing and runs no script but its own."""
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"


@cache
def _part(name: str) -> str:
    return resources.files("workflows.sweep").joinpath(name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_part("page.html"))
