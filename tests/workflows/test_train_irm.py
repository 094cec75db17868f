"""The multi-task sampler, batches, and a run that learns and resumes exactly."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.attributes import ATTRIBUTES, UNKNOWN_LABEL
from modeling.instruct_reid.checkpoint import load_irm
from modeling.instruct_reid.config import PRESETS, IrmConfig
from modeling.instruct_reid.instructions import SENTENCES, TASKS
from tests.modeling.instruct_reid.small_irm import IMAGE, WORDS, small_irm
from tests.workflows.reid_archive import reid_archive
from workflows.train import irm_batching
from workflows.train.irm_batching import ReidBatcher
from workflows.train.irm_config import IrmTrainConfig
from workflows.train.irm_run import IrmRun, learning_rate
from workflows.train.irm_sampler import TaskSampler
from workflows.train.irm_samples import ReidSamples, load_reid_samples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reid_archive(str(tmp_path_factory.mktemp("reid-train") / "archive")).path("tables/frames")


@pytest.fixture(scope="module")
def samples(frames: str) -> ReidSamples:
    return load_reid_samples([frames], gap_s=0.5)


@pytest.fixture(autouse=True)
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", IrmConfig(image=IMAGE, instruction=WORDS))


def _sampler(samples: ReidSamples, **changes: Any) -> TaskSampler:
    settings = {"identities_per_step": 4, "pictures_per_identity": 4, "seed": 0} | changes
    return TaskSampler(samples, settings.pop("tasks", TASKS), **settings)


def test_samples(samples: ReidSamples) -> None:
    assert samples.num_identities == 6
    assert set(samples.attributes) == set(samples.pictures) == set(samples.clothes.tolist())
    assert samples.is_infrared.any() and all(samples.texts)
    cut = samples.upper_clothes(0)
    assert cut.shape[0] > 30 and cut.shape[2] == 3


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_any_number_of_workers_trains_every_task_and_shares_the_same_step(
    samples: ReidSamples, num_workers: int
) -> None:
    workers = [_sampler(samples, worker=n, num_workers=num_workers) for n in range(num_workers)]
    single = _sampler(samples)

    def alone(step: int) -> list[int]:
        return samples.identity[single.draw(step).rows[::4]].tolist()

    counts: Counter[str] = Counter()
    for step in range(12):
        draws = [worker.draw(step) for worker in workers]
        assert len({draw.task for draw in draws}) == 1
        identities = np.concatenate([samples.identity[draw.rows[::4]] for draw in draws])
        assert len(identities) == 4 and sorted(identities) == sorted(alone(step))
        counts[draws[0].task] += 1
    assert counts == dict.fromkeys(TASKS, 2)


def test_a_task_gets_its_share_of_every_round(samples: ReidSamples) -> None:
    sampler = _sampler(samples, shares={"VI": 3, "Trad": 2})
    for first in (0, 9, 18):
        counts = Counter(sampler.task_of(step) for step in range(first, first + 9))
        assert counts == {"Trad": 2, "CC": 1, "CTCC": 1, "VI": 3, "T2I": 1, "LI": 1}
    with pytest.raises(ValidationError, match=r"task_shares names VI, which tasks \(CC, LI\) leaves out"):
        IrmTrainConfig.model_validate({
            "what": "irmpp", "frames": [], "out": "o", "tasks": ["cc", "li"], "task_shares": {"vi": 2, "li": 2},
        })  # fmt: skip


def test_a_draw_depends_on_seed_and_step_alone(samples: ReidSamples) -> None:
    one, same, other = (_sampler(samples, seed=seed).draw(7) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.rows, same.rows)
    np.testing.assert_array_equal(one.wanted, same.wanted)
    assert (one.task, one.rows.tolist()) != (other.task, other.rows.tolist())


def test_each_task_draws_what_it_is_about(samples: ReidSamples) -> None:
    sampler = _sampler(samples)
    for step in range(24):
        draw = sampler.draw(step)
        assert draw.is_query.tolist() == [True, True, False, False] * 4
        for rows, wanted in zip(draw.rows.reshape(4, 4), draw.wanted.reshape(4, 4), strict=True):
            assert len(set(samples.identity[rows].tolist())) == 1
            clothes, asked, infrared = samples.clothes[rows], samples.clothes[wanted], samples.is_infrared[rows]
            if draw.task == "VI":
                assert infrared[:2].all() != infrared[2:].all() and infrared[0] == infrared[1]
            else:
                assert not infrared.any()
            if draw.task in ("Trad", "VI"):
                assert len(set(clothes.tolist())) == 1
            if draw.task in ("CC", "CTCC"):
                assert not set(clothes[:2].tolist()) & set(clothes[2:].tolist())
            if draw.task in ("CTCC", "LI"):
                assert set(asked.tolist()) == set(clothes[2:].tolist())
            np.testing.assert_array_equal(wanted[2:], rows[2:])


def test_classes_may_be_sets_of_clothes(samples: ReidSamples) -> None:
    """A sample belongs to the clothes in which it is to be found; whoever's clothes are unknown is one class."""
    worn, sampler = samples.classes("clothes"), _sampler(samples)
    assert samples.classes("identity") is samples.identity
    assert len(set(zip(worn, samples.clothes, strict=True))) == len(set(worn)) == len(set(samples.clothes))
    unknown = replace(samples, knows_clothes=np.zeros(len(worn), dtype=np.bool_))
    np.testing.assert_array_equal(unknown.classes("clothes"), samples.identity)
    batcher = ReidBatcher(samples, small_irm(), seed=0, classes="clothes")
    for step in range(12):
        draw = sampler.draw(step)
        found, shown = batcher.batch(draw, step).identity.reshape(4, 4).numpy(), worn[draw.rows].reshape(4, 4)
        if draw.task == "T2I":
            np.testing.assert_array_equal(found, shown)
        else:
            assert (found == shown[:, 2:3]).all()
        assert (found[:, :2] != shown[:, :2]).all() == (draw.task in ("CC", "CTCC"))


def test_tasks_that_the_data_cannot_ask_are_left_out(samples: ReidSamples) -> None:
    plain = ReidSamples(**{**samples.__dict__, "is_infrared": np.zeros(len(samples.crops), dtype=np.bool_)})
    assert _sampler(plain).tasks == tuple(task for task in TASKS if task != "VI")
    with pytest.raises(DataError, match="infrared"):
        _sampler(plain, tasks=("VI",))
    with pytest.raises(ConfigError, match="multiple of 3"):
        _sampler(samples, num_workers=3)


def test_batches(samples: ReidSamples) -> None:
    irm = small_irm()
    sampler, batcher = _sampler(samples), ReidBatcher(samples, irm, seed=0, augment_strength=0.5)
    for step in range(12):
        draw = sampler.draw(step)
        batch, again = (batcher.batch(draw, step) for _ in range(2))
        assert batch.pixels.shape == (16, 3, 32, 16) and len(batch.instructions) == 16
        torch.testing.assert_close(batch.pixels, again.pixels)
        assert len(batch.instructions.picture_rows) == (16 if draw.task == "CTCC" else 0)
        if draw.task in SENTENCES:
            texts = irm.instruction.tokenizer.batch_decode(batch.instructions.token_ids, skip_special_tokens=True)
            assert all(any(text.strip() in s for s in SENTENCES[draw.task]) for text in texts)


def test_without_jitter_erasing_and_light_a_crop_is_its_box_or_its_mirror(samples: ReidSamples) -> None:
    irm = small_irm()
    draw = _sampler(samples).draw(0)
    plain = ReidBatcher(samples, irm, seed=0, is_plain=True).batch(draw, 0).pixels
    still = ReidBatcher(samples, irm, seed=0, crop_jitter=0, erased_share=0).batch(draw, 0).pixels
    usual = ReidBatcher(samples, irm, seed=0).batch(draw, 0).pixels
    off = torch.minimum((still - plain).abs().amax((1, 2, 3)), (still - plain.flip(3)).abs().amax((1, 2, 3)))
    assert off.max() < 1e-3 and (usual - still).abs().amax((1, 2, 3)).min() > 0.1


def test_half_of_the_pictures_across_spectra_lose_their_colours(
    samples: ReidSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float | None] = []
    plain = irm_batching.photometric

    def noting(pixels: torch.Tensor, generator: torch.Generator, **settings: Any) -> torch.Tensor:
        shares.append(settings["colourless_share"])
        return plain(pixels, generator, **settings)

    monkeypatch.setattr(irm_batching, "photometric", noting)
    sampler, batcher = _sampler(samples), ReidBatcher(samples, small_irm(), seed=0, augment_strength=0.5)
    draws = [sampler.draw(step) for step in range(6)]
    for step, draw in enumerate(draws):
        batcher.batch(draw, step)
    assert shares == [0.5 if draw.task == "VI" else None for draw in draws]
    crops = torch.rand(64, 3, 8, 4, generator=torch.manual_seed(0))
    spread = plain(crops, torch.manual_seed(0), colourless_share=0.5).std(dim=1).amax((1, 2))
    assert 20 < int((spread < 1e-6).sum()) < 44


def test_attributes_of_pictures_and_of_what_is_asked(samples: ReidSamples) -> None:
    sampler, batcher = _sampler(samples), ReidBatcher(samples, small_irm(), seed=0)
    names = list(ATTRIBUTES)
    upper, gender = names.index("upper colour"), names.index("gender")
    for step in range(12):
        draw = sampler.draw(step)
        batch = batcher.batch(draw, step)
        assert batch.shown is not None and batch.wanted is not None
        assert batch.shown.shape == batch.wanted.shape == (16, len(ATTRIBUTES))
        for place, (row, about) in enumerate(zip(draw.rows, draw.wanted, strict=True)):
            worn = samples.attributes[int(samples.clothes[row])]
            asked = samples.attributes[int(samples.clothes[about])]
            shown, wanted = batch.shown[place].tolist(), batch.wanted[place].tolist()
            assert shown[gender] == wanted[gender] == 1 + ATTRIBUTES["gender"].index(worn["gender"])
            colour = 1 + ATTRIBUTES["upper colour"].index(worn["upper colour"])
            assert shown[upper] == (UNKNOWN_LABEL if samples.is_infrared[row] else colour)
            if draw.task == "CC":  # clothes are what must not count
                assert wanted[upper] == UNKNOWN_LABEL
            elif not samples.is_infrared[about]:
                assert wanted[upper] == 1 + ATTRIBUTES["upper colour"].index(asked["upper colour"])


def test_a_stem_of_convolutions_settles_for_the_last_steps(
    samples: ReidSamples, frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = IMAGE.model_copy(update={"stem": (4, 8, 12)})
    monkeypatch.setitem(PRESETS, "tiny", IrmConfig(image=image, instruction=WORDS))

    def statistics(run: IrmRun) -> torch.Tensor:
        return run.objective.irm.image.patch_embed.first.norm.running_mean.clone()  # type: ignore[union-attr]

    config = _config(frames, tmp_path, settled_share=0.5)
    run, seen = IrmRun(config, samples), []
    run.objective.train()
    for number in range(6):
        run.train_step(number, run._make(number))
        seen.append(statistics(run))
    assert not torch.equal(seen[1], seen[2])
    assert all(torch.equal(seen[2], later) for later in seen[3:])
    assert config.settles_at == 3


def _config(frames: str, out: Path, **changes: Any) -> IrmTrainConfig:
    settings = {
        "what": "irmpp", "frames": [frames], "out": str(out), "steps": 6, "identities_per_step": 4,
        "learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1, "settled_share": 0.0,
    }  # fmt: skip
    return IrmTrainConfig(**(settings | changes))


@pytest.mark.parametrize("what", ["irm", "irmpp"])
def test_a_stopped_run_continues_as_if_it_had_not_stopped(
    samples: ReidSamples, frames: str, tmp_path: Path, what: str
) -> None:
    whole = IrmRun(_config(frames, tmp_path / "whole", what=what), samples).run()
    IrmRun(_config(frames, tmp_path / "cut", what=what, steps=3), samples).run()
    run = IrmRun(_config(frames, tmp_path / "cut", what=what), samples)
    assert run.step == 3  # progress goes on from here
    continued = run.run()
    for (name, one), other in zip(whole.state_dict().items(), continued.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    figures = [json.loads(line) for line in (tmp_path / "cut" / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in figures] == [1, 2, 3, 4, 5, 6]
    assert load_irm(str(tmp_path / "cut" / "model")).config.kind == ("irm" if what == "irm" else "irm++")


def test_one_task_alone_is_learned(samples: ReidSamples, frames: str, tmp_path: Path) -> None:
    config = _config(frames, tmp_path, tasks=("Trad",), steps=40, learning_rate=3e-3)
    IrmRun(config, samples).run()
    losses = [json.loads(line)["Trad/identity"] for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_learning_rate() -> None:
    config = IrmTrainConfig(what="irm", frames=["x"], out="x")
    assert learning_rate(0, config) == pytest.approx(1e-7)
    assert learning_rate(1000, config) == learning_rate(3000, config) == pytest.approx(1e-5)
    falling = config.model_copy(update={"schedule": "cosine"})
    assert learning_rate(4000, falling) == pytest.approx(2e-7)


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="must be even"):
        IrmTrainConfig(what="irm", frames=["x"], out="x", pictures_per_identity=3)
    with pytest.raises(ValueError, match="none twice"):
        IrmTrainConfig(what="irm", frames=["x"], out="x", tasks=("LI", "LI"))


def test_another_number_of_identities_cannot_continue_a_run(samples: ReidSamples, frames: str, tmp_path: Path) -> None:
    IrmRun(_config(frames, tmp_path, steps=1), samples).run()
    kept = samples.identity < 5
    fewer = ReidSamples(
        samples.crops[kept], samples.identity[kept], samples.clothes[kept], samples.knows_clothes[kept],
        samples.camera[kept], samples.is_infrared[kept],
        [t for t, keep in zip(samples.texts, kept, strict=True) if keep], samples.pictures, samples.attributes,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="other frames"):
        IrmRun(_config(frames, tmp_path), fewer)
