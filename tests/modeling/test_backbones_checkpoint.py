"""Weight files: every published form is read, a file that could run code never is, and messages name the trouble."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from modeling.backbones.checkpoint import check_state, load_checked, read_state, read_weight_file, resolve_checkpoint
from modeling.errors import WeightsError
from tests.modeling.checkpoint_files import write_folder, write_weights

STATE = {f"layer{place}.weight": torch.randn(3, place + 1) for place in range(7)}


class RunsCode:
    """What a malicious pickle holds: unpickling it calls `Path.touch` on the trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin", "model*.safetensors", "pytorch_model*.bin"])
def test_a_folder_is_read_in_every_form(tmp_path: Path, form: str) -> None:
    state = read_state(write_folder(tmp_path, {}, STATE, form=form))
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


def test_torchs_old_format_and_wrapped_states_are_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": STATE}, tmp_path / "wrapped.pth")
    torch.save({"model": STATE}, tmp_path / "model.pth")
    for name in ("old.pth", "wrapped.pth", "model.pth"):
        assert torch.equal(read_weight_file(tmp_path / name)["layer3.weight"], STATE["layer3.weight"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old_format", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, old_format: bool) -> None:
    trace = tmp_path / "trace"
    bad = {**STATE, "extra": RunsCode(trace)}
    torch.save(bad, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(WeightsError, match="refused"):
        read_state(tmp_path)
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(RunsCode(trace)))
    with pytest.raises(WeightsError):
        read_weight_file(tmp_path / "bare.bin")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    write_weights(tmp_path / name, STATE)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(WeightsError, match=name):
        read_state(tmp_path)


def test_a_file_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3, "weight": torch.ones(1)}, tmp_path / "mixed.pth")
    for name in ("list.pth", "mixed.pth"):
        with pytest.raises(WeightsError, match="named tensors only"):
            read_weight_file(tmp_path / name)


def test_a_missing_shard_and_a_shard_without_its_tensor_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {}, STATE, form="model*.safetensors")
    shards = sorted(folder.glob("*.safetensors"))
    write_weights(shards[1], {"other": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"lacks tensors that .*index"):
        read_state(folder)
    shards[1].unlink()
    with pytest.raises(WeightsError, match=shards[1].name):
        read_state(folder)


def test_an_index_may_not_leave_its_folder(tmp_path: Path) -> None:
    write_weights(tmp_path / "secret.safetensors", STATE)
    folder = tmp_path / "model"
    folder.mkdir()
    index = {"weight_map": {"layer0.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="outside its own folder"):
        read_state(folder)


def test_an_empty_folder_and_a_wrong_path_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_state(tmp_path)
    with pytest.raises(WeightsError, match="no checkpoint at"):
        resolve_checkpoint(str(tmp_path / "nowhere"))


def test_a_hub_id_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(WeightsError, match=r"openai/clip.*no network.*give its folder"):
        resolve_checkpoint("openai/clip")


def test_a_hub_id_is_downloaded_as_safetensors_or_else_as_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns[-1])
        if asked[-1] == "*.bin":
            write_folder(tmp_path, {}, STATE, form="pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert read_state(resolve_checkpoint("owner/old-model")).keys() == STATE.keys()
    assert asked == ["*.safetensors", "*.bin"]


def test_what_is_missing_or_misshapen_is_listed() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(WeightsError, match=r"here lacks 1 of 2 tensors of this model: bias; it has weight, other"):
        load_checked(module, {"weight": torch.ones(2, 3), "other": torch.ones(1)}, source="here")
    with pytest.raises(WeightsError, match=r"weight is \(3, 2\), the model needs \(2, 3\)"):
        load_checked(module, {"weight": torch.ones(3, 2), "bias": torch.ones(2)}, source="here")
    with pytest.raises(WeightsError, match=r"lacks 9 of 9 .* and 4 more"):
        check_state({f"w{place}": torch.ones(1) for place in range(9)}, {}, source="here")


def test_nothing_is_loaded_when_something_does_not_fit() -> None:
    module = nn.Linear(3, 2)
    before = module.bias.detach().clone()
    with pytest.raises(WeightsError):
        load_checked(module, {"weight": torch.ones(3, 3), "bias": torch.ones(2)}, source="here")
    assert torch.equal(module.bias, before)


def test_optional_and_surplus_tensors() -> None:
    module = nn.Linear(3, 2)
    load_checked(module, {"weight": torch.ones(2, 3), "surplus": torch.ones(1)}, source="here", optional=["bias"])
    assert module.weight.sum() == 6
