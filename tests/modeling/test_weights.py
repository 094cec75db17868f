"""The weights that come with psreid: small together, described, and loadable by name."""

import numpy as np
import pytest

from modeling.instruct_reid.encoder import load_irm_encoder
from modeling.instruct_reid.instructions import Instruction, fixed_sentence
from modeling.ps_reid.folder import SHIPPED_FOLDER, model_family, model_folder

MOST_BYTES = 20_000_000


def test_they_are_small_together_and_described() -> None:
    folders = [folder for folder in SHIPPED_FOLDER.iterdir() if folder.is_dir()]
    assert {folder.name for folder in folders} == {"tiny", "tiny-irmpp"}
    assert all((folder / "MODEL_CARD.md").is_file() for folder in folders)
    assert sum(file.stat().st_size for file in SHIPPED_FOLDER.rglob("*") if file.is_file()) < MOST_BYTES


@pytest.fixture(scope="module")
def irmpp() -> object:
    return load_irm_encoder("tiny-irmpp")


def _person(upper: tuple[int, int, int], lower: tuple[int, int, int], seed: int) -> np.ndarray:
    """A crop of somebody standing, as far as it takes."""
    rng = np.random.default_rng(seed)
    crop = np.full((128, 64, 3), (120, 125, 130), dtype=np.uint8)
    crop[8:26, 24:40] = (190, 150, 120)
    crop[26:70, 16:48] = upper
    crop[70:120, 20:44] = lower
    noise = rng.integers(-12, 13, crop.shape)
    return np.clip(crop.astype(int) + noise, 0, 255).astype(np.uint8)


def test_irmpp_knows_tasks_and_tells_colours_apart(irmpp) -> None:  # type: ignore[no-untyped-def]
    assert model_family(model_folder("tiny-irmpp")) == "instruct_reid"
    red, blue = (200, 40, 40), (40, 60, 190)
    dark = (40, 40, 50)
    gallery = irmpp.gallery([_person(red, dark, 1), _person(blue, dark, 2)])
    words = Instruction(text="a man in a blue shirt, dark trousers")
    asked = irmpp.queries([_person(red, dark, 3), None], [fixed_sentence("Trad"), words])
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([gallery, asked]), axis=1), 1, atol=1e-5)
    assert asked[0] @ gallery[0] > asked[0] @ gallery[1]
    assert asked[1] @ gallery[1] > asked[1] @ gallery[0]
