"""Training on windows: pictures, boxes and masks of a batch line up with the truth; both trainings run on them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from modeling.backbones.sam import PIXEL_MEAN, PIXEL_STD
from modeling.ps_reid.checkpoint import load_model, save_model
from modeling.ps_reid.config import SegmentationConfig
from modeling.ps_reid.windows import within
from modeling.regions import rle_to_mask
from tests.modeling.ps_reid.small_model import small_config, small_model
from tests.workflows.synthetic_archive import make_archive
from tests.workflows.training_run import local_tables, train_config
from workflows.ledger import Ledger
from workflows.progress import Progress
from workflows.storage import Folder
from workflows.train.catalogue import FrameStore
from workflows.train.config import FoundationConfig
from workflows.train.draws import PairSampler
from workflows.train.foundation import FoundationPlan, FoundationRun
from workflows.train.grid import GridMaker
from workflows.train.sam_pictures import SamPictureMaker, box_jitter
from workflows.train.samples import Samples, is_usable, load_samples
from workflows.train.step import run_foundation
from workflows.train.worker import draw_plan

ZOOM = 1.5


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("windows") / "archive"
    make_archive(str(folder), identities=12, frames=40, density=3.0, split="all")
    return str(folder / "tables/frames")


def read_tables(frames: str) -> Iterator[pa.Table]:
    folder = Folder(frames)
    for part in Ledger.read(folder).parts():
        table = folder.read_table(part.name, columns=["camera_id", "image", "persons"])
        yield table.append_column("archive", pa.repeat(pa.scalar(0), part.rows))


@pytest.fixture(scope="module")
def config() -> SegmentationConfig:
    """SAM's input as in `tiny`."""
    sam = small_config().segmentation.sam
    assert sam is not None
    return SegmentationConfig(sam=replace(sam, image_size=160), zoom=ZOOM)


@pytest.fixture(scope="module")
def samples(frames: str, config: SegmentationConfig) -> Samples:
    return load_samples(read_tables(frames), scene_hw=(36, 64), segmentation=config, identities=None)


def test_windows_show_the_persons_and_their_masks(frames: str, samples: Samples, config: SegmentationConfig) -> None:
    """A window's mask, put back into the frame, is the true one up to rounding; its pixels are the frame's."""
    rows = [row for table in read_tables(frames) for row in table.to_pylist()]
    people = [(row, person) for row in rows for person in row["persons"] if is_usable(person)]
    assert len(samples.windows) == len(people) > 50 and not samples.masks
    numbers = np.arange(0, len(people), 3)
    jitter = box_jitter(len(numbers), torch.Generator().manual_seed(0))
    maker = SamPictureMaker(samples, config)
    made = maker.pictures(numbers, samples.frame[numbers], jitter)
    assert made.pixels_F3SS.shape[1:] == (3, 160, 160) and made.masks_Ahw.shape[1:] == (80, 80)
    sides = within(maker.boxes(numbers, jitter), made.squares_A4)
    assert ((sides[:, 2:] - sides[:, :2]).amax(1) - 1 / ZOOM).abs().max() < 1e-4
    overlaps, areas, differences = [], [], []
    for place, number in enumerate(numbers):
        row, person = people[number]
        truth = rle_to_mask(person["mask_rle"])
        height, width = truth.shape
        square = made.squares_A4[place] * torch.tensor([width, height, width, height])
        found = _in_frame(made.masks_Ahw[place][None], square, height, width)[0] > 0.5
        areas.append(truth.sum())
        overlaps.append((found & truth).sum() / (found | truth).sum())
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        shown = _in_frame(made.pixels_F3SS[made.picture_A[place]], square, height, width)
        pixels = shown.transpose(1, 2, 0) * PIXEL_STD + PIXEL_MEAN
        differences.append(np.abs(pixels - image)[truth].mean())
    assert np.mean(overlaps) > 0.9 and np.min(np.array(overlaps)[np.array(areas) > 100]) > 0.8
    assert np.mean(differences) < 8


def _in_frame(picture_CSS: torch.Tensor, square_px: torch.Tensor, height: int, width: int) -> np.ndarray:
    """(C, height, width) the picture of a square, seen at the centres of the frame's pixels; 0 outside of it."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    shares = (torch.stack([x, y], dim=-1) - square_px[:2]) / (square_px[2:] - square_px[:2])
    return torch.nn.functional.grid_sample(picture_CSS[None], 2 * shares[None] - 1, align_corners=False)[0].numpy()


def test_one_person_has_one_window_and_nobody_an_empty_mask(samples: Samples, config: SegmentationConfig) -> None:
    persons = np.array([4, -1, 4, 2])
    made = SamPictureMaker(samples, config).pictures(persons, np.zeros(4, dtype=int), torch.zeros(4, 4))
    assert len(made.pixels_F3SS) == 3 and made.picture_A.tolist() == [2, 0, 2, 1]
    assert torch.equal(made.masks_Ahw[0], made.masks_Ahw[2]) and made.masks_Ahw[0].max() > 0.99
    assert not made.masks_Ahw[1].any()
    soft = (made.masks_Ahw > 0) & (made.masks_Ahw < 1)
    assert soft.any() and made.masks_Ahw.min() >= 0 and made.masks_Ahw.max() < 1.001


def test_a_foundation_learns_from_windows(frames: str, tmp_path: Path) -> None:
    config = small_config(zoom=ZOOM)
    vision = config.vision
    scene_hw = (vision.scene_height_px, vision.scene_width_px)
    samples = load_samples(read_tables(frames), scene_hw=scene_hw, segmentation=config.segmentation, identities=None)
    plan = FoundationPlan(
        steps=3, identities_per_step=3, contrast_identities=4, pairs_every=2, sam_every=2, threads=1, log_every=1,
        warmup_steps=1,
    )  # fmt: skip
    FoundationRun(tmp_path, config, samples, plan).run()
    figures = (tmp_path / "figures.jsonl").read_text()
    assert '"wbce"' in figures and '"sam"' in figures and "NaN" not in figures
    assert load_model(str(tmp_path / "model")).segmentation.zoom == ZOOM


def test_a_foundation_takes_the_sizes_of_its_start(frames: str, tmp_path: Path) -> None:
    """Those of the preset may be others."""
    save_model(small_model(small_config(zoom=1.7)), tmp_path / "start")
    settings: dict[str, Any] = {"only_boxes": True, "steps": 1, "threads": 1, "contrast_identities": 2}
    config = FoundationConfig(
        frames=[frames], out=str(tmp_path / "run"), start_from=str(tmp_path / "start"), **settings
    )
    run_foundation(config, Progress())
    assert load_model(str(tmp_path / "run/model")).config == load_model(str(tmp_path / "start")).config


def test_windows_do_not_depend_on_the_number_of_workers(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get", lambda value: value)
    save_model(small_model(small_config(zoom=ZOOM)), tmp_path / "start")
    inputs: dict[str, Any] = {"frames": [frames], "start_from": str(tmp_path / "start")}
    settings, tables = train_config(inputs, Path("unused"), mask_frames=3), local_tables(frames)
    grid = GridMaker(FrameStore(tables), load_model(inputs["start_from"]), seed=settings.seed)
    draw = PairSampler(tables.catalogue, draw_plan(settings), frozenset()).draw(7)
    whole = grid.share(draw, 7, 0, 1).truth
    shares = [grid.share(draw, 7, rank, 3).truth for rank in range(3)]
    windows = {tuple(square) for square, counts in _counted(whole) if counts}
    assert windows == {tuple(square) for share in shares for square, counts in _counted(share) if counts}
    assert len(windows) > 1


def _counted(truth: Any) -> Iterator[tuple[list[float], bool]]:
    yield from zip(truth.squares_A4.tolist(), truth.is_supervised_A.tolist(), strict=True)
