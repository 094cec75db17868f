"""Addresses of trackers, code and data identities, curves."""

from pathlib import Path

import pytest

from modeling.errors import ConfigError, StorageError, WeightsError
from workflows.index.config import IndexConfig
from workflows.tracking.client import check_server
from workflows.tracking.config import checked_uri, flat_settings, tracking_uri
from workflows.tracking.curves import draw_curves, read_curves
from workflows.tracking.identity import code_identity, data_identity
from workflows.tracking.registry import local_model, pin_model, pin_models
from workflows.tracking.step import track_command


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = IndexConfig(frames="f", out="o")
    assert tracking_uri(config) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:1")
    assert tracking_uri(config) == "http://there:1"
    assert tracking_uri(IndexConfig(frames="f", out="o", tracking_uri="http://here:2/")) == "http://here:2"


@pytest.mark.parametrize("uri", ["mlruns", "file:///runs", "ftp://x", "127.0.0.1:5000"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="no MLflow address"):
        checked_uri(uri)


def test_passwords_do_not_belong_into_an_address() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        checked_uri("http://me:secret@there")
    assert "secret" not in str(refused.value)


def test_no_server_is_said_at_the_start() -> None:
    with pytest.raises(StorageError, match="psreid tracking"):
        check_server("http://127.0.0.1:9")


def test_without_tracking_a_command_just_runs() -> None:
    summary = object()
    assert track_command("index", IndexConfig(frames="f", out="o"), "o", lambda: summary) is summary  # type: ignore[arg-type,return-value]


def test_settings_are_flat() -> None:
    assert flat_settings({"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}) == {"a": "1", "b.c": "[1, 2]", "b.d.e": "None"}


def test_code_is_named_by_version() -> None:
    tags = code_identity("search")
    assert tags["psreid.version"]
    assert tags["mlflow.source.name"] == "psreid search"


def test_folders_that_are_no_step_are_no_data(tmp_path: Path) -> None:
    assert data_identity(IndexConfig(frames=str(tmp_path), out=str(tmp_path))) == []


def test_models_that_are_folders_are_left_alone() -> None:
    config = IndexConfig(frames="f", out="o", model="tiny")
    assert pin_models(config).model == "tiny"
    assert local_model("tiny") == "tiny"


def test_a_registered_model_needs_a_server() -> None:
    with pytest.raises(WeightsError, match="MLFLOW_TRACKING_URI"):
        pin_model("models:/psreid@champion")
    with pytest.raises(StorageError, match="no MLflow server answers"):
        pin_model("models:/psreid@champion", uri="http://127.0.0.1:9")


def test_curves_take_the_last_word_on_a_step_and_pass_over_half_lines() -> None:
    lines = [
        '{"step": 1, "loss": 3.0, "stage": 1}',
        '{"step": 2, "loss": 2.0}',
        '{"step": 2, "loss": 1.5}',
        '{"step": 3, "lo',
    ]
    curves = read_curves(lines)
    assert curves == {"loss": [(1, 3.0), (2, 1.5)]}
    picture = draw_curves(curves, title="run")
    assert picture.startswith(b"\x89PNG")
