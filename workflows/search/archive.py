"""What is searched: a finished index, the frames it was made of, and the model that made it."""

from dataclasses import dataclass

from modeling.errors import ConfigError, DataError
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import identity_of_model, is_instruct_reid, knows_tasks
from workflows.index.step import index_shard_id
from workflows.schema import index_schema, require_table
from workflows.search.config import SearchConfig


@dataclass(frozen=True)
class Archive:
    """The inputs of a search besides its queries."""

    index: StepInput
    frames: StepInput
    encoder_model: str
    """Model whose person encoder made the index; queries are embedded by it."""
    num_not_indexed: int = 0
    """Frames that came after the index; `frames` leaves them out."""

    @property
    def num_frames(self) -> int:
        return self.frames.manifest.rows

    @property
    def num_persons(self) -> int:
        return self.index.manifest.rows


def open_archive(config: SearchConfig) -> Archive:
    """Opens index and frames; DataError or ConfigError when one is missing, unfinished, empty or does not fit."""
    index = open_step(config.index, command="index")
    if index.step.step != "index":
        raise DataError(
            f"{index.folder.uri} is the output of `{index.step.step}`; give the folder that `psreid index` wrote"
        )
    frames = open_step(config.frames or str(index.step.config["frames"]), command="ingest")
    covered = _indexed_frames(index, frames)
    if not covered.parts:
        raise DataError(f"{frames.folder.uri} holds no frame, so there is nothing to search")
    _check_persons(config, index)
    not_indexed = frames.manifest.rows - covered.manifest.rows
    return Archive(index, covered, str(index.step.config["model"]), num_not_indexed=not_indexed)


def _indexed_frames(index: StepInput, frames: StepInput) -> StepInput:
    """The frames that the index was made of; the archive may have grown since. ConfigError when some are missing."""
    encoder = index.step.inputs["model"]
    indexed = {index_shard_id(part.shard_id, encoder): part.shard_id for part in frames.parts}
    lost = index.manifest.shard_ids - indexed.keys()
    if lost or frames.settings_digest != index.step.inputs["frames"]:
        raise ConfigError(
            f"the frames in {frames.folder.uri} are not those that {index.folder.uri} was made of: they have changed "
            "since, or it is another folder. Index them again into another folder, or give the right one with --frames."
        )
    return frames.restricted({indexed[shard_id] for shard_id in index.manifest.shard_ids})


def check_judge(config: SearchConfig) -> None:
    """ConfigError when the model that is to judge and to draw masks is of another kind."""
    if config.stop_after != "recall" and is_instruct_reid(config.model):
        raise ConfigError(
            f"the model {config.model!r} is an instruct-ReID model, which makes an index but judges no pairs and draws "
            "no masks. Leave --model out, or give a PS-ReID model; who decides is set by --judge-by."
        )


def check_encoder(config: SearchConfig, archive: Archive) -> None:
    """ConfigError when the index's model is no longer the same, or does not know the task that is asked."""
    if identity_of_model(archive.encoder_model) != archive.index.step.inputs["model"]:
        raise ConfigError(
            f"the model {archive.encoder_model!r} has changed since {archive.index.folder.uri} was made with it. "
            "Index the frames again into another folder, or put that model back."
        )
    if (config.task or config.clothes or config.instruction) and not knows_tasks(archive.encoder_model):
        raise ConfigError(
            f"{archive.index.folder.uri} was made with {archive.encoder_model!r}, which knows no tasks and no "
            "instructions. Index the frames with an instruct-ReID model into another folder: psreid index "
            f"{archive.frames.folder.uri} OUT --model tiny-irmpp"
        )


def _check_persons(config: SearchConfig, index: StepInput) -> None:
    if config.recall == "none":
        return
    if not index.parts:
        raise DataError(
            f"the index {index.folder.uri} holds no person, so there is nothing to recall. Lower the detector's limits "
            "at ingest (--min-score, --min-height, --min-width), or judge every frame with --recall none."
        )
    part = index.parts[0].name
    require_table(index.folder.read_schema(part), index_schema(1), source=index.folder.path(part))
