"""Settings: what wins over what, and how a mistake is told."""

from pathlib import Path

import pytest
from pydantic import Field, field_validator

from modeling.errors import ConfigError, DataError
from workflows.config import StepConfig, load_config


class Detector(StepConfig):
    name: str = "hog"
    """Which detector."""
    min_score: float = Field(0.5, ge=0)
    """Smallest score kept, on the detector's own scale."""


class Ingest(StepConfig):
    out: str
    """Folder for the frames."""
    sources: tuple[str, ...] = ()
    """Videos."""
    detector: Detector = Detector()
    """How persons are found."""
    every: int | None = None
    """Keep every n-th frame."""

    @field_validator("every")
    @classmethod
    def _positive(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be 1 or more")
        return value


def test_set_wins_over_flags_over_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("out: from-file\nevery: 3\ndetector:\n  name: file\n  min_score: 0.1\n")
    config = load_config(
        Ingest,
        str(file),
        {"out": "from-flag", "detector.name": "flag", "every": None},
        ["detector.name=set", "sources=[a, b]"],
    )
    assert config == Ingest(out="from-flag", every=3, detector=Detector(name="set", min_score=0.1), sources=("a", "b"))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["evry=2"], r"unknown setting evry; did you mean every\?"),
        (["detector.min_scor=2"], r"unknown setting detector\.min_scor; did you mean detector\.min_score\?"),
        (["detector.zzz=2"], r"unknown setting detector\.zzz; the settings there are min_score, name"),
        (["every=0"], r"every: must be 1 or more, got 0 \(Keep every n-th frame\)"),
        (["detector.min_score=-1"], r"detector\.min_score: .*greater than or equal to 0, got -1 \(Smallest score kept"),
        (["every=[1"], r"--set every=\[1 is not valid YAML"),
        (["every"], r"--set 'every' is not of the form key=value"),
        (["every.x=1", "every=2", "every.x=1"], r"every\.x: every holds 2, which has no keys"),
    ],
)
def test_a_mistake_is_named_by_its_full_path(sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(Ingest, None, {"out": "x"}, sets)


def test_a_missing_setting_says_what_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"out is needed \(Folder for the frames\)"):
        load_config(Ingest)


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="must hold keys and values"):
        load_config(Ingest, str(file))
    file.write_text("")
    assert load_config(Ingest, str(file), {"out": "x"}).out == "x"
    with pytest.raises(DataError, match="there is no file"):
        load_config(Ingest, str(tmp_path / "nope.yaml"))


def test_a_config_cannot_be_changed() -> None:
    config = Ingest(out="x")
    with pytest.raises(ValueError, match="frozen"):
        config.out = "y"  # type: ignore[misc]
