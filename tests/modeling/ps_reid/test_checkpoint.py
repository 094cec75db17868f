"""Save and load: the same decisions after a round trip; a damaged folder is refused with its file's name."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.errors import ConfigError, WeightsError
from modeling.ps_reid.build import build_model, named_preset
from modeling.ps_reid.checkpoint import load_model, load_segmentation, save_model
from modeling.ps_reid.config import PRESETS, LanguageConfig, PsReidConfig
from modeling.ps_reid.folder import model_identity
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.person_encoder import load_person_encoder
from modeling.ps_reid.segmenter import Segmenter
from modeling.types import MaskPrompt, PairDecision
from tests.modeling.ps_reid.small_model import (
    all_pairs,
    paper_config,
    picture,
    ragged_queries,
    ragged_targets,
    small_model,
    small_tokenizer,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(small_model(), folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def decide(judge: Judge) -> list[PairDecision]:
    queries, targets = ragged_queries(), ragged_targets()
    return judge.judge({i: judge.encode_query(q) for i, q in queries.items()}, targets, all_pairs(queries, targets))


def test_round_trip_gives_the_same_decisions_and_masks(saved: Path) -> None:
    before, after = decide(Judge(small_model())), decide(Judge.load(str(saved)))
    assert [d.score for d in after] == pytest.approx([d.score for d in before], abs=1e-5)
    for a, b in zip(after, before, strict=True):
        np.testing.assert_allclose(a.prompt.embedding, b.prompt.embedding, atol=1e-5)
    frame = ragged_targets()[0].image
    prompts = [d.prompt for d in before[:3]]
    expected = Segmenter(small_model().segmentation).masks(frame, prompts)
    np.testing.assert_array_equal(Segmenter.load(str(saved)).masks(frame, prompts), expected)


def test_round_trip_of_the_papers_shape(tmp_path: Path) -> None:
    model = small_model(paper_config())
    save_model(model, tmp_path)
    assert [d.score for d in decide(Judge.load(str(tmp_path)))] == pytest.approx(
        [d.score for d in decide(Judge(model))], abs=1e-5
    )


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_half_precision_file_loads_into_float32(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path, dtype=torch.float16)
    loaded = load_model(str(tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    scores, exact = (np.array([d.score for d in decide(Judge(m))]) for m in (loaded, small_model()))
    np.testing.assert_allclose(scores, exact, atol=0.3)


@pytest.mark.parametrize(
    "name", ["psreid.safetensors", "lora/adapter_model.safetensors", "sam.safetensors", "llama/model.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "pickle"])
def test_a_damaged_weight_file_is_refused(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    whole = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "pickle":
        file.write_bytes(pickle.dumps({"weights": Explosive()}))
    with pytest.raises(WeightsError, match=file.name if damage != "missing" or "llama" not in name else "llama"):
        load_model(str(copy))
    assert not Explosive.has_run


class Explosive:
    """Unpickling it leaves a trace."""

    has_run = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Explosive, "has_run", True)


def test_weights_of_another_config_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["metric_dim"] = 17
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"psreid\.safetensors"):
        load_model(str(copy))


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"version": 99}', "version 99"), ("{", "not a psreid model"), ('{"version": 1}', "not a psreid model")],
)
def test_a_bad_config_is_refused(copy: Path, text: str, said: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=said):
        load_model(str(copy))


def test_a_missing_model_is_named_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model at"):
        load_model(str(tmp_path / "nothing"))
    with pytest.raises(WeightsError, match="13b"):
        load_model("13b")


def test_identity_changes_with_the_weights_alone(saved: Path, copy: Path) -> None:
    assert model_identity(str(copy)) == model_identity(str(saved))
    data = bytearray((copy / "psreid.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "psreid.safetensors").write_bytes(data)
    assert model_identity(str(copy)) != model_identity(str(saved))


def test_the_segmenter_needs_no_language_model(copy: Path) -> None:
    shutil.rmtree(copy / "llama")
    module = load_segmentation(str(copy))
    trained = small_model().segmentation.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in module.state_dict().items())


def test_the_segmenter_gives_one_mask_per_prompt_in_the_frames_pixels(saved: Path) -> None:
    segmenter, frame = Segmenter.load(str(saved)), picture(0, 70, 110)
    prompts = [d.prompt for d in decide(Judge(small_model()))] * 1
    masks = segmenter.masks(frame, prompts[:20])
    assert masks.shape == (20, 70, 110) and masks.dtype == bool
    alone = np.concatenate([segmenter.masks(frame, [prompt]) for prompt in prompts[:20]])
    np.testing.assert_array_equal(masks, alone)
    assert segmenter.masks(frame, []).shape == (0, 70, 110)


def test_the_segmenter_takes_plain_prompts(saved: Path) -> None:
    prompt = MaskPrompt(np.zeros(32, dtype=np.float32), np.array([5, 5, 40, 60], dtype=np.float32))
    assert Segmenter.load(str(saved)).masks(picture(0, 70, 110), [prompt]).shape == (1, 70, 110)


def test_person_encoder_gives_unit_vectors_that_depend_on_nothing_else(saved: Path) -> None:
    encoder = load_person_encoder(str(saved))
    crops = [picture(i, 40 + 7 * i, 20 + 3 * i) for i in range(5)]
    persons = encoder.embed_persons(crops)
    queries = encoder.embed_queries(list(ragged_queries().values()))
    assert persons.shape == (5, encoder.dim) and queries.shape == (5, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([persons, queries]), axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_persons(crops[3:4])[0], persons[3], atol=1e-5)
    assert encoder.embed_persons([]).shape == (0, encoder.dim)
    assert encoder.identity == model_identity(str(saved))


# ---- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_own_json(name: str) -> None:
    assert PsReidConfig.model_validate_json(named_preset(name).model_dump_json()) == PRESETS[name]


def test_the_papers_presets_have_the_papers_numbers() -> None:
    for name in ("7b", "13b"):
        config = PRESETS[name]
        assert (config.attention, config.close_ups, config.has_grounding) == ("joint", 0, False)
        assert (config.language.lora_rank, config.vision.tower.image_size, config.vision.tower.patch_size) == (
            8,
            336,
            14,
        )


@pytest.mark.parametrize("name", ["7b", "13b"])
def test_a_large_preset_can_be_built_without_memory(name: str) -> None:
    """On the meta device, so shapes are checked and nothing is allocated; a fifth of a percent of it is LoRA."""
    config = PRESETS[name]
    random_parts = {
        "vision": config.vision.model_copy(update={"source": None}),
        "language": config.language.model_copy(update={"source": None, "base": None}),
        "segmentation": config.segmentation.model_copy(update={"source": None}),
    }
    with torch.device("meta"):
        model = build_model(config.model_copy(update=random_parts), tokenizer=small_tokenizer())
    count = sum(p.numel() for p in model.language.parameters())
    lora = sum(p.numel() for n, p in model.language.named_parameters() if "lora_" in n)
    assert count == pytest.approx({"7b": 6.5e9, "13b": 12.7e9}[name], rel=0.03)
    assert lora == 2 * 2 * 8 * config.language.hidden_size * config.language.num_layers


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tiny, small, 7b, 13b"):
        named_preset("huge")


def test_grounding_without_close_ups_is_refused() -> None:
    with pytest.raises(ValueError, match="has_grounding"):
        PsReidConfig(**{**paper_config().model_dump(), "has_grounding": True})


def test_random_language_weights_need_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        build_model(paper_config())


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        LanguageConfig(hidden_size=8, num_layers=1, num_heads=1, mlp_size=8, hidden=3)  # type: ignore[call-arg]
