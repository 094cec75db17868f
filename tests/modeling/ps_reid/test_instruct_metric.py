"""An instruct-ReID model as the metric: the index's own features, in judging, training, and on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.errors import DataError, WeightsError
from modeling.instruct_reid.checkpoint import load_irm, save_irm
from modeling.instruct_reid.encoder import IrmEncoder
from modeling.ps_reid import folder as folders
from modeling.ps_reid.build import trainable_parts, with_metric
from modeling.ps_reid.checkpoint import load_model, save_model
from modeling.ps_reid.folder import METRIC_FOLDER, metric_model, model_identity
from modeling.ps_reid.instruct_metric import InstructMetric
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.losses import LossWeights
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import training_step
from modeling.ps_reid.person_encoder import load_person_encoder
from modeling.ps_reid.reference import PlainJudge
from modeling.types import QueryInput
from tests.modeling.instruct_reid.small_irm import small_irm
from tests.modeling.ps_reid.small_model import all_pairs, picture, ragged_queries, ragged_targets, small_model
from tests.modeling.ps_reid.test_objective import batch_of


@pytest.fixture(scope="module")
def irm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("irm")
    save_irm(small_irm(stripes=2, has_neck=True), folder)
    return folder


@pytest.fixture
def model(irm_folder: Path) -> PsReid:
    """The small model, whose pixels have the size of the small IRM's, with that for its metric."""
    return with_metric(small_model(), str(irm_folder))


def test_judge_and_index_compare_the_same_features(model: PsReid, irm_folder: Path) -> None:
    encoder = IrmEncoder(load_irm(str(irm_folder)), identity="")
    queries = [*ragged_queries().values(), QueryInput("task", picture(4, 50, 20), None, task="CC")]
    encoded = Judge(model).encode_queries(queries)
    got = np.concatenate([query.encoded.metric_QM.numpy() for query in encoded])
    np.testing.assert_allclose(got, encoder.embed_queries(queries), atol=1e-5)

    crops = [picture(seed, 40, 20) for seed in range(3)]
    judge = Judge(model)
    with torch.inference_mode():
        persons = model.embed_persons(judge._processor.crops(crops)).numpy()
    np.testing.assert_allclose(persons, encoder.embed_persons(crops), atol=1e-5)


@pytest.mark.parametrize("attention", ["joint", "separated"])
def test_the_judge_equals_one_forward_per_pair(model: PsReid, attention: str) -> None:
    queries, targets = ragged_queries(), ragged_targets()
    pairs = all_pairs(queries, targets)
    judge = Judge(model, attention=attention)  # type: ignore[arg-type]
    shared = judge.judge({q.query_id: q for q in judge.encode_queries(list(queries.values()))}, targets, pairs)
    plain = PlainJudge(model, attention=attention).judge(queries, targets, pairs)  # type: ignore[arg-type]
    np.testing.assert_allclose([d.score for d in shared], [d.score for d in plain], atol=1e-4)


def test_a_task_that_lacks_what_it_needs_is_refused(model: PsReid) -> None:
    with pytest.raises(DataError, match="CTCC"):
        Judge(model).encode_query(QueryInput("q", picture(1, 40, 20), None, task="CTCC"))


def test_training_leaves_the_metric_as_it_is(model: PsReid) -> None:
    assert isinstance(model.metric, InstructMetric)
    irm = model.metric.irm
    before = {name: tensor.clone() for name, tensor in irm.state_dict().items()}
    assert [name for name, _ in trainable_parts(model)["metric"].named_parameters()] == ["log_scale"]
    assert not any("irm" in name or "_frozen" in name for name in model.state_dict())
    model.train()
    queries, targets, truth = batch_of(model)
    training_step(model, queries, targets, truth, LossWeights()).terms.total(LossWeights()).backward()
    assert model.metric.log_scale.grad is not None
    assert not irm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in irm.state_dict().items())


def test_it_moves_along_with_the_model(model: PsReid) -> None:
    assert isinstance(model.metric, InstructMetric)
    model.to(torch.bfloat16)
    assert model.metric.irm.text_to_image.weight.dtype == torch.bfloat16


def test_a_saved_model_brings_its_metric(model: PsReid, irm_folder: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    assert metric_model(str(tmp_path / "model")) == str(tmp_path / "model" / METRIC_FOLDER)
    queries, targets = ragged_queries(), ragged_targets()
    scores = []
    for one in (model, load_model(str(tmp_path / "model"))):
        judge = Judge(one)
        encoded = {q.query_id: q for q in judge.encode_queries(list(queries.values()))}
        scores.append([d.score for d in judge.judge(encoded, targets, all_pairs(queries, targets))])
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    save_model(load_model(str(tmp_path / "model")), tmp_path / "again")
    assert model_identity(str(tmp_path / "again" / METRIC_FOLDER)) == model_identity(str(irm_folder))


def test_a_shipped_metric_is_named_and_counts_for_the_identity(
    irm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SHIPPED_FOLDER", irm_folder.parent)
    save_model(with_metric(small_model(), irm_folder.name), tmp_path / "model")
    assert not (tmp_path / "model" / METRIC_FOLDER).exists()
    before = model_identity(str(tmp_path / "model"))
    config = irm_folder / "config.json"
    text = config.read_text()
    config.write_text(text + "\n")
    try:
        assert model_identity(str(tmp_path / "model")) != before
    finally:
        config.write_text(text)


def test_its_index_is_the_metrics_own(model: PsReid, irm_folder: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    encoder, own = load_person_encoder(str(tmp_path / "model")), IrmEncoder(load_irm(str(irm_folder)), identity="")
    crops = [picture(seed, 40, 20) for seed in range(3)]
    np.testing.assert_array_equal(encoder.embed_persons(crops), own.embed_persons(crops))
    assert encoder.identity == model_identity(str(tmp_path / "model"))


def test_a_metric_that_is_none_is_refused(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "psreid")
    with pytest.raises(WeightsError, match="instruct-ReID model"):
        with_metric(small_model(), str(tmp_path / "psreid"))
    save_model(small_model(), tmp_path / "broken")
    config = json.loads((tmp_path / "broken" / "config.json").read_text())
    (tmp_path / "broken" / "config.json").write_text(json.dumps(config | {"metric_source": "nowhere"}))
    with pytest.raises(WeightsError, match="nowhere"):
        load_model(str(tmp_path / "broken"))
