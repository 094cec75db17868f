"""`psreid index`: the archive once through the person encoder, one shard a part of the frames table."""

from functools import partial

from modeling.errors import ConfigError, DataError
from workflows.index.config import IndexConfig
from workflows.index.encode import EncodePersons
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import identity_of_model, load_person_encoder
from workflows.index.workers import pool_size
from workflows.ledger import Ledger, Shard, StepIdentity, describe_growth, make_shard_id
from workflows.progress import Progress, Summary
from workflows.runner import run_step
from workflows.schema import SCHEMA_VERSION
from workflows.stages import Resources, StageSpec
from workflows.storage import Folder

CODE_VERSION = "2"  # raised when the same inputs would give other rows


def run_index(config: IndexConfig, progress: Progress) -> Summary:
    """Embeds every person of the archive; continues where an earlier run stopped, and adds the frames that are new."""
    frames = open_frames(config.frames)
    out, shards = Folder(config.out), index_shards(config, frames)
    check_nothing_vanished(out, frames, shards)
    before = Ledger.read(out).manifest if out.exists("step.json") else None
    manifest = run_step(
        folder=out,
        identity=index_identity(config, frames),
        shards=shards,
        stages=[encode_stage(config, frames)],
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
    )
    figures = {
        "frames": frames.manifest.rows,
        "persons": manifest.rows,
        "quarantined": manifest.quarantined,
        "worker_seconds": manifest.seconds,
    }
    headline = f"Indexed {manifest.rows} persons of {frames.manifest.rows} frames with {config.model}: {out.uri}"
    growth = describe_growth(before, manifest, unit="persons")
    return Summary(headline, out.uri, figures, details=[growth] if growth else [])


def open_frames(uri: str) -> StepInput:
    """The frames to index; DataError when there is none."""
    frames = open_step(uri, command="ingest")
    if not frames.parts:
        raise DataError(
            f"{frames.folder.uri} holds no frame, so there is nothing to index. Check the sources that were ingested, "
            f"and what was set aside in {frames.folder.path('quarantine')}."
        )
    return frames


def index_shards(config: IndexConfig, frames: StepInput) -> list[Shard]:
    """One shard a part of the frames table, in the order of their ids."""
    encoder = identity_of_model(config.model)
    return [Shard(index_shard_id(part.shard_id, encoder), {"part": part.name}) for part in frames.parts]


def index_shard_id(frames_shard_id: str, encoder: str) -> str:
    """The shard of the index that holds the persons of a shard of frames; `encoder` is the model's identity."""
    return make_shard_id("index", frames_shard_id, encoder)


def check_nothing_vanished(out: Folder, frames: StepInput, shards: list[Shard]) -> None:
    """ConfigError when the index holds persons of frames that are no longer there."""
    manifest = Ledger.read(out).manifest if out.exists("step.json") else None
    lost = manifest.shard_ids - {shard.shard_id for shard in shards} if manifest else frozenset()
    if lost and manifest:
        raise ConfigError(
            f"{out.uri} indexes {manifest.shards} parts of frames, and {len(lost)} of them are not in "
            f"{frames.folder.uri} any more: it is another archive, or another model. An index grows with its frames; "
            "for others, use another output folder."
        )


def index_identity(config: IndexConfig, frames: StepInput) -> StepIdentity:
    """What makes two runs the same index; how many parts the frames have is not in it, because they grow."""
    return StepIdentity(
        step="index",
        config={"model": config.model, "frames": frames.folder.uri},
        inputs={"frames": frames.settings_digest, "model": identity_of_model(config.model)},
        code_version=CODE_VERSION,
        schema_version=SCHEMA_VERSION,
    )


def encode_stage(config: IndexConfig, frames: StepInput) -> StageSpec:
    device = "cuda" if config.gpus_per_actor else "cpu"
    return StageSpec(
        factory=EncodePersons,
        kwargs={
            "frames_uri": frames.folder.uri,
            "load_encoder": partial(load_person_encoder, config.model, device=device),
            "batch_persons": config.batch_persons,
        },
        resources=Resources(cpus=config.cpus_per_actor, gpus=config.gpus_per_actor),
        pool=pool_size(
            config.actors, num_shards=len(frames.parts), cpus=config.cpus_per_actor, gpus=config.gpus_per_actor
        ),
    )
