"""The psreid commands inside a submission: read as psreid itself would read them, with the paths that they name.

`psreid submit -- ingest A B -- index B C` holds two; they run one after the other until one fails.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.errors import ConfigError
from ray_jobs.cli import read_command
from workflows.config import StepConfig

NOT_WRAPPED = frozenset({"submit", "jobs"})
SEPARATOR = "--"


@dataclass(frozen=True)
class WrappedCommand:
    """One command of a job."""

    words: tuple[str, ...]
    config: StepConfig
    places: tuple[str, ...]
    """What its positional arguments name: folders and files it reads and the folder it writes."""
    config_file: str | None

    @property
    def verb(self) -> str:
        return self.words[0]

    @property
    def values(self) -> list[str]:
        """Every text among its settings, and its config file."""
        found = list(_texts(self.config.model_dump(mode="json")))
        return found if self.config_file is None else [*found, self.config_file]

    @property
    def remote_places(self) -> list[str]:
        """The s3:// URIs among its settings, each once."""
        return list(dict.fromkeys(value for value in self.values if value.startswith("s3://")))


def split_commands(words: Sequence[str]) -> list[list[str]]:
    """The words of each command, at every lone `--`."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == SEPARATOR:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def read_commands(words: Sequence[str]) -> list[WrappedCommand]:
    """The commands of a job, checked as their own run would check them; ConfigError if there is none."""
    commands = split_commands(words)
    if not commands:
        raise ConfigError(
            "there is no command to submit. Write it after `--`: psreid submit -- search s3://b/index s3://b/out ..."
        )
    return [_read(command) for command in commands]


def files_to_carry(commands: Sequence[WrappedCommand], folder: Path) -> list[Path]:
    """Files below `folder` that the commands name by a relative path (a picture, a config): they travel with the job.

    ConfigError for a relative path that cannot travel: a folder, or an output.
    """
    carried: dict[Path, None] = {}
    for command in commands:
        for value in command.values:
            if "\n" in value or len(value) > 4096 or "://" in value or os.path.isabs(value):  # noqa: PTH117
                continue
            path = folder / value
            if value and path.is_file():
                _check_inside(path, folder, value)
                carried[Path(os.path.relpath(path, folder))] = None
            elif value in command.places or (os.sep in value and path.is_dir()):
                raise ConfigError(
                    f"{command.verb}: {value} is a path of this machine, which the cluster's nodes do not have. Give "
                    "s3://bucket/prefix, or the absolute path of a disk that every node mounts at the same place."
                )
    return list(carried)


def shared_paths(commands: Sequence[WrappedCommand]) -> list[str]:
    """Absolute local paths among the commands' places: every node must see them."""
    places = [place for command in commands for place in command.places]
    return list(dict.fromkeys(place for place in places if os.path.isabs(place)))  # noqa: PTH117


def _read(words: Sequence[str]) -> WrappedCommand:
    if words[0] in NOT_WRAPPED:
        raise ConfigError(f"`psreid {words[0]}` cannot run as a job. Submit a step, such as ingest, index or search.")
    options, config, positional = read_command(words)
    places = [text for name in (*positional, "out") for text in _texts(getattr(config, name, None))]
    return WrappedCommand(tuple(words), config, tuple(dict.fromkeys(places)), options.config_file)


def _check_inside(path: Path, folder: Path, value: str) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{value} lies outside the working directory {folder}, so it cannot travel with the job. Run psreid from "
            "a folder that holds it, or use --working-dir."
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
