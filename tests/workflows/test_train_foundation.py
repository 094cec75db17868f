"""The foundation's loop at small size: every task, a kill in the middle, and a metric that is given."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.checkpoint import save_irm
from modeling.ps_reid.build import build_segmentation, with_segmentation
from modeling.ps_reid.checkpoint import load_model, load_segmentation, save_model
from modeling.ps_reid.folder import METRIC_FOLDER, model_identity
from tests.modeling.instruct_reid.small_irm import small_irm
from tests.modeling.ps_reid.small_model import small_config, small_model
from tests.workflows.synthetic_archive import make_archive
from workflows.train.foundation import FIGURES_FILE, FoundationPlan, FoundationRun, Start
from workflows.train.samples import Samples, load_samples
from workflows.train.step import _tables

PLAN = FoundationPlan(
    steps=6, identities_per_step=3, contrast_identities=6, pairs_every=2, captions_every=2, sam_every=2, threads=1,
    log_every=1, warmup_steps=2, learning_rate=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("archive")
    make_archive(str(folder), identities=12, frames=60, density=3.0, split="all")
    return str(folder / "tables/frames")


@pytest.fixture(scope="module")
def samples(frames: str) -> Samples:
    return read(frames)


def read(frames: str, identities: frozenset[str] | None = None) -> Samples:
    config = small_config()
    assert config.segmentation.sam is not None
    scene = (config.vision.scene_height_px, config.vision.scene_width_px)
    return load_samples(_tables([frames]), scene_hw=scene, segmentation=config.segmentation, identities=identities)


def figures(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / FIGURES_FILE).read_text().splitlines()]


def test_a_killed_run_ends_as_one_that_was_not(samples: Samples, tmp_path: Path) -> None:
    whole = FoundationRun(tmp_path / "whole", small_config(), samples, PLAN).run()

    class KilledError(Exception):
        pass

    steps: list[int] = []

    def die() -> None:
        steps.append(len(steps))
        if len(steps) == 3:
            run.save()
            raise KilledError

    run = FoundationRun(tmp_path / "killed", small_config(), samples, PLAN, on_step=die)
    with pytest.raises(KilledError):
        run.run()
    resumed = FoundationRun(tmp_path / "killed", small_config(), samples, PLAN).run()
    expected = whole.state_dict()
    differing = {
        name: float((tensor - expected[name]).abs().max())
        for name, tensor in resumed.state_dict().items()
        if not torch.equal(tensor, expected[name])
    }
    assert not differing
    rows = figures(tmp_path / "killed")
    assert rows[-1]["step"] == PLAN.steps
    assert {"contrast", "caption", "sam", "wbce", "metric"} <= rows[-1].keys()


def test_a_given_metric_stays_as_it_is_and_every_step_judges_pairs(samples: Samples, tmp_path: Path) -> None:
    save_irm(small_irm(), tmp_path / "irm")
    folder = tmp_path / "run"
    FoundationRun(folder, small_config(), samples, PLAN, start=Start(metric=str(tmp_path / "irm"))).run()
    rows = figures(folder)
    assert all("reid" in row and "contrast" not in row for row in rows)
    assert load_model(str(folder / "model")).metric.dim == small_irm().config.image.width
    assert model_identity(str(folder / "model" / METRIC_FOLDER)) == model_identity(str(tmp_path / "irm"))


def test_a_start_without_it_learns_to_join_what_it_finds(samples: Samples, tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "start")
    start = Start(model=str(tmp_path / "start"), joins_found=True)
    FoundationRun(tmp_path / "run", small_config(), samples, PLAN, start=start).run()
    trained = load_model(str(tmp_path / "run/model"))
    assert trained.config.joins_found and trained.grounding is not None and trained.grounding.finding is not None
    assert trained.grounding.finding.join.weight.abs().max() > 0


def test_a_language_model_learns_to_describe_who_it_is_shown(samples: Samples, tmp_path: Path) -> None:
    """Without pairs, on another model's vision encoder."""
    save_model(small_model(seed=5), tmp_path / "other")
    plan = replace(PLAN, steps=60, pairs_from_step=60, captions_every=1, learning_rate=3e-3, contrast_identities=12)
    start = Start(vision=str(tmp_path / "other"))
    run = FoundationRun(tmp_path / "run", small_config(), samples, plan, start=start)
    for name, tensor in load_model(str(tmp_path / "other")).vision.state_dict().items():
        torch.testing.assert_close(run.model.vision.state_dict()[name], tensor)
    run.run()
    rows = figures(tmp_path / "run")
    assert not any("reid" in row for row in rows)
    assert rows[-1]["caption"] < 0.6 * rows[0]["caption"]


def test_a_vision_encoder_of_other_pictures_is_refused(samples: Samples, tmp_path: Path) -> None:
    config = small_config()
    wide = config.vision.model_copy(update={"scene_width_px": 2 * config.vision.scene_width_px})
    save_model(small_model(config.model_copy(update={"vision": wide})), tmp_path / "other")
    with pytest.raises(ConfigError, match="same preset"):
        FoundationRun(tmp_path / "run", config, samples, PLAN, start=Start(vision=str(tmp_path / "other")))


def test_another_models_sam_is_taken_once_with_its_zoom(samples: Samples, tmp_path: Path) -> None:
    config = small_config()
    zooming = config.segmentation.model_copy(update={"zoom": 1.5})
    save_model(small_model(config.model_copy(update={"segmentation": zooming}), seed=5), tmp_path / "other")
    start, folder = Start(sam=str(tmp_path / "other")), tmp_path / "run"
    run = FoundationRun(folder, config, samples, PLAN, start=start)
    taken = load_segmentation(str(tmp_path / "other")).state_dict()
    assert run.model.segmentation.zoom == run.model.config.segmentation.zoom == 1.5
    assert all(torch.equal(tensor, taken[name]) for name, tensor in run.model.segmentation.state_dict().items())
    with torch.no_grad():
        run.model.segmentation.sam.mask_decoder.iou_token.weight.add_(1.0)
    run.save()
    continued = FoundationRun(folder, config, samples, PLAN, start=start).model.segmentation.state_dict()
    name = "sam.mask_decoder.iou_token.weight"
    torch.testing.assert_close(continued[name], taken[name] + 1.0)


def test_a_sam_of_another_width_is_refused() -> None:
    wide = small_config().segmentation
    assert wide.sam is not None
    numbers = wide.model_copy(update={"sam": replace(wide.sam, prompt_width=64)})
    with pytest.raises(ConfigError, match="width 64"):
        with_segmentation(small_model(), build_segmentation(numbers), numbers)


def test_frames_without_identities_are_refused(frames: str) -> None:
    with pytest.raises(DataError, match="no person with an identity"):
        read(frames, identities=frozenset())


def test_tables_of_several_archives_are_told_apart(frames: str) -> None:
    tables = pa.concat_tables(_tables([frames, frames]))
    assert set(tables["archive"].to_pylist()) == {0, 1}
