"""One worker's training loop without Ray: a golden curve, resuming, the export, and what the batches hold."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.ps_reid.checkpoint import load_model
from modeling.ps_reid.losses import LossWeights
from modeling.ps_reid.objective import training_step
from tests.workflows.training_run import LocalMailbox, local_tables, make_inputs, one_process, train_config
from workflows.storage import Folder
from workflows.train.catalogue import FrameStore
from workflows.train.config import PsReidTrainConfig
from workflows.train.draws import PairSampler, held_out_identities
from workflows.train.finish import trained_model
from workflows.train.grid import GridMaker
from workflows.train.pacing import learning_rate
from workflows.train.parts import parameters_of, select_trainable, start_model
from workflows.train.state import StateStore
from workflows.train.worker import StageRun, Task, draw_plan

GOLDEN = {1: 19.876, 25: 18.633, 50: 14.838}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_inputs(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def tables(inputs: dict[str, Any]) -> Any:
    return local_tables(inputs["frames"][0])


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with one_process():
        yield


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get", lambda value: value)
    monkeypatch.setattr("ray.train.report", lambda metrics: None)


def train(config: PsReidTrainConfig, tables: Any, *, stop_after: int | None = None) -> list[float]:
    """Runs what is left of both stages; the loss of every step. `stop_after` breaks off as a kill would."""
    mailbox = LocalMailbox()
    for stage in (1, 2):
        run = StageRun(Task(config, stage, tables, mailbox), 0, 1, torch.device("cpu"))
        if stop_after is not None:
            run._engine.backward_and_step = _break_after(run._engine.backward_and_step, stop_after)
        try:
            run.run()
        except KeyboardInterrupt:
            break
    return mailbox.losses()


def _break_after(step: Any, count: int) -> Any:
    calls = []

    def counted(loss: torch.Tensor) -> float | None:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(1)
        return step(loss)

    return counted


def test_a_golden_run(inputs: dict[str, Any], tables: Any, tmp_path: Path) -> None:
    config = train_config(
        inputs, tmp_path, stage1={"steps": 25, "learning_rate": 1e-3}, stage2={"steps": 25, "learning_rate": 1e-3},
        checkpoint_every=50, eval_queries=0, identities_per_step=2, targets_per_identity=1, query_variants=1,
    )  # fmt: skip
    losses = train(config, tables)
    assert len(losses) == 50
    assert {step: losses[step - 1] for step in GOLDEN} == pytest.approx(GOLDEN, rel=0.02)
    assert np.mean(losses[40:]) < np.mean(losses[:10])


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_broken_run_joins_its_curve_exactly(
    inputs: dict[str, Any], tables: Any, tmp_path: Path, stop_after: int
) -> None:
    whole = train(train_config(inputs, tmp_path / "whole", eval_queries=0), tables)
    config = train_config(inputs, tmp_path / "broken", eval_queries=0)
    assert train(config, tables, stop_after=stop_after) == whole[:stop_after]
    train(config, tables)
    joined = [json.loads(line)["loss"] for line in (tmp_path / "broken/figures.jsonl").read_text().splitlines()]
    assert joined == whole


def test_the_exported_model_is_the_trained_one(inputs: dict[str, Any], tables: Any, tmp_path: Path) -> None:
    config = train_config(inputs, tmp_path, held_out_share=0.4)
    mailbox = LocalMailbox()
    for stage in (1, 2):
        run = StageRun(Task(config, stage, tables, mailbox), 0, 1, torch.device("cpu"))
        run.run()
    trained = run._engine._engine.module.model.eval()
    exported = load_model(str(tmp_path / "model"))
    pairs = GridMaker(FrameStore(tables), exported, seed=0).share(run._sampler.draw(5), 5, 0, 1)
    with torch.no_grad():
        ours, theirs = (
            training_step(m, pairs.queries, pairs.targets, pairs.truth, LossWeights()).decisions
            for m in (trained, exported)
        )
    assert torch.equal(ours.scores_NQ, theirs.scores_NQ)
    assert torch.equal(ours.boxes_NQ4, theirs.boxes_NQ4)
    start = load_model(inputs["start_from"])
    assert not torch.equal(exported.control.head, start.control.head)
    assert torch.equal(exported.vision.model.embeddings.class_embedding, start.vision.model.embeddings.class_embedding)
    evaluation = [m.metrics for m in mailbox.messages if m.kind == "evaluation"][-1]
    assert len(list((tmp_path / "samples").glob("*.png"))) >= 2
    assert evaluation is not None and 0 <= float(evaluation["eval_mAP"]) <= 1 and float(evaluation["eval_queries"]) >= 2


def test_fresh_parts_are_drawn_by_the_seed_and_exported_though_nobody_trains_them(
    inputs: dict[str, Any], tables: Any, tmp_path: Path
) -> None:
    settings = {"fresh": ["control_tokens", "target_adapter", "lora"], "stage2": {"steps": 0}, "eval_queries": 0}
    config = train_config(inputs, tmp_path / "run", **settings)
    stored, start, other = (
        dict(model.named_parameters())
        for model in (
            load_model(inputs["start_from"]),
            start_model(config),
            start_model(config.model_copy(update={"seed": 1})),
        )
    )
    changed = {name for name in start if not torch.equal(start[name], stored[name])}
    by_seed = {name for name in start if not torch.equal(start[name], other[name])}
    assert by_seed <= changed
    for names in (changed, by_seed):
        assert {name.split(".")[0] for name in names} == {"control", "target_adapter", "language"}
        assert all("lora_" in name for name in names if name.startswith("language"))
    train(config, tables)
    exported = dict(load_model(str(tmp_path / "run/model")).named_parameters())
    assert torch.equal(exported["control.embed"], start["control.embed"]), "stage 1 trains the adapters alone"
    assert not torch.equal(exported["target_adapter.expand.weight"], start["target_adapter.expand.weight"])
    for part in ("mask_decoder", "vision"):
        with pytest.raises(ConfigError, match=f"{part} cannot begin anew; what can: .*control_tokens.*lora"):
            start_model(train_config(inputs, tmp_path, fresh=[part]))


def test_the_states_alone_may_be_made_to_decide(inputs: dict[str, Any], tables: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adds_evidence: false needs joins_found: true"):
        start_model(train_config(inputs, tmp_path, adds_evidence=False))
    settings = {"joins_found": True, "adds_evidence": False, "stage1": {"steps": 0}, "eval_queries": 0}
    config = train_config(inputs, tmp_path / "run", **settings)
    start, again = (dict(start_model(config).named_parameters()) for _ in range(2))
    assert start["grounding.finding.mix.weight"].equal(again["grounding.finding.mix.weight"])
    train(config, tables)
    exported = load_model(str(tmp_path / "run/model"))
    assert exported.config.joins_found and not exported.config.adds_evidence
    assert dict(exported.named_parameters())["grounding.finding.join.weight"].any(), "it has learned to join"


def test_recomputed_activations_and_accumulation_change_memory_and_not_the_curve(
    inputs: dict[str, Any], tables: Any, tmp_path: Path
) -> None:
    plain = train(train_config(inputs, tmp_path / "a", eval_queries=0, accumulation=2), tables)
    recomputed = train(
        train_config(inputs, tmp_path / "b", eval_queries=0, accumulation=2, recompute_activations=True), tables
    )
    assert recomputed == pytest.approx(plain, rel=1e-5)


def test_bf16_stays_near_fp32(inputs: dict[str, Any], tables: Any, tmp_path: Path) -> None:
    fp32 = train(train_config(inputs, tmp_path / "a", eval_queries=0, stage2={"steps": 0}), tables)
    bf16 = train(train_config(inputs, tmp_path / "b", eval_queries=0, stage2={"steps": 0}, precision="bf16"), tables)
    assert bf16 == pytest.approx(fp32, rel=0.05)


def test_shares_are_the_batch_dealt_out(inputs: dict[str, Any], tables: Any) -> None:
    """Whatever the number of workers, every query and target looks the same, and each mask is learned once."""
    config = train_config(inputs, Path("unused"), other_targets=1, mask_frames=3)
    model = start_model(config)
    grid = GridMaker(FrameStore(tables), model, seed=config.seed)
    draw = PairSampler(tables.catalogue, draw_plan(config), frozenset()).draw(7)
    assert len(draw.frames) == config.targets == 7
    whole = grid.share(draw, 7, 0, 1)
    shares = [grid.share(draw, 7, rank, 3) for rank in range(3)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.queries.pixels_Q3HW, whole.queries.pixels_Q3HW)
        places = draw.share(rank, 3)
        assert torch.equal(share.targets.scenes_N3HW, whole.targets.scenes_N3HW[places])
        assert torch.equal(share.truth.is_positive_NQ, whole.truth.is_positive_NQ[places])
        own = [i for i, owner in enumerate(whole.targets.owner_C.tolist()) if owner in places]
        assert len(share.targets.owner_C) == len(own)
        assert len(share.truth.sam_pixels_F3HW) == 1, "every worker segments equally many frames"
    learned = sum(int(s.truth.is_supervised_A.sum()) for s in shares if s.truth.is_supervised_A is not None)
    assert whole.truth.is_supervised_A is not None and learned == int(whole.truth.is_supervised_A.sum()) > 0


def test_held_out_identities_are_never_queried(inputs: dict[str, Any], tables: Any) -> None:
    config = train_config(inputs, Path("unused"))
    held_out = held_out_identities(tables.catalogue, 0.3, config.seed)
    sampler = PairSampler(tables.catalogue, draw_plan(config), held_out)
    queried = {int(tables.catalogue.identity[p]) for batch in range(40) for p in sampler.draw(batch).queries}
    assert held_out and not queried & held_out
    assert queried == {
        i for i, g in enumerate(tables.catalogue.sightings())
        if i not in held_out and len(np.unique(tables.catalogue.frame[g])) > 1
    }  # fmt: skip


def test_the_catalogue_does_not_depend_on_the_order_of_parts(tables: Any) -> None:
    from workflows.train.catalogue import list_rows, make_catalogue

    blocks = [list_rows(block) for block in tables.blocks]
    there, back = (make_catalogue(order, [0] * len(blocks)) for order in (blocks, blocks[::-1]))
    assert there.names == back.names and there.frame_ids == back.frame_ids
    assert np.array_equal(there.identity, back.identity) and np.array_equal(there.frame, back.frame)


def test_a_stage_trains_its_parts_alone(inputs: dict[str, Any]) -> None:
    """The rows of table III: adapters; with the mask decoder; with LoRA. The vocabulary is never among them."""
    model = start_model(train_config(inputs, Path("unused")))
    sets = (("query_adapter", "target_adapter"), ("mask_decoder",), ("lora",))
    sizes = [len(select_trainable(model, [part for chosen in sets[: n + 1] for part in chosen])) for n in range(3)]
    assert sizes[0] < sizes[1] < sizes[2]
    chosen = select_trainable(model, ["control_tokens"])
    assert {name: tuple(p.shape) for name, p in chosen.items()} == {"control.embed": (3, 64), "control.head": (3, 64)}
    assert list(parameters_of(model, "box_head")) == []
    with pytest.raises(ConfigError, match="none of the parts"):
        select_trainable(model, ["box_head"])


def test_checkpoints_are_whole_or_absent(tmp_path: Path) -> None:
    store, folder = StateStore(Folder(str(tmp_path))), Folder(str(tmp_path))
    tensors = {"a|value": torch.ones(2), "a|exp_avg": torch.zeros(2)}
    store.write_share(1, 4, 0, tensors)
    assert store.newest(1) is None
    store.complete(1, 4, 1)
    store.write_share(1, 8, 0, tensors)
    newest = store.newest(1)
    assert newest is not None and newest.step == 4 and store.read(newest)["a"]["value"].tolist() == [1, 1]
    store.complete(1, 8, 1)
    assert [n for n in folder.list_files("state/") if "00000004" in n] == []
    store.write_share(1, 12, 0, tensors)
    store.drop_incomplete(1)
    assert {n.split("/")[2] for n in folder.list_files("state/")} == {"00000008"}


def test_too_little_to_train_on_is_said(inputs: dict[str, Any], tables: Any) -> None:
    plan = replace(draw_plan(train_config(inputs, Path("unused"))), identities=500)
    with pytest.raises(DataError, match="identities_per_step is 500"):
        PairSampler(tables.catalogue, plan, frozenset())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 7}, "7 workers cannot share 6 targets"),
        ({"workers": 4, "mask_frames": 6}, "lower mask_frames"),
        ({"stage1": {"steps": 0}, "stage2": {"steps": 0}}, "nothing would be trained"),
        ({"stage1": {"steps": 3, "trains": ["adapters"]}}, "stage1.trains.0"),
        ({"zero_stage": 4}, "zero_stage"),
    ],
)
def test_wrong_settings_are_refused(inputs: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_config(inputs, Path("unused"), **changes)


def test_the_newest_model_is_readable_in_the_middle(inputs: dict[str, Any], tables: Any, tmp_path: Path) -> None:
    config = train_config(inputs, tmp_path, eval_queries=0)
    train(config, tables, stop_after=2)
    model = trained_model(config, StateStore(Folder(str(tmp_path))))
    start = load_model(inputs["start_from"])
    assert not torch.equal(model.query_adapter.expand.weight, start.query_adapter.expand.weight)
    assert learning_rate(0, config.stage1) == config.stage1.learning_rate
