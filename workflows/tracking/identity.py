"""What a run was made of: which code, which data."""

import getpass
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from modeling.errors import PsreidError
from workflows.config import StepConfig
from workflows.index.inputs import open_step
from workflows.storage import Folder

ROOT = Path(__file__).resolve().parents[2]


def code_identity(command: str) -> dict[str, str]:
    """Tags that say which code runs; the commit only where the code lies in a git work tree."""
    tags = {
        "mlflow.source.name": f"psreid {command}",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "psreid.version": metadata.version("psreid"),
        "psreid.command": command,
        "psreid.host": platform.node(),
    }
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else ""
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["psreid.uncommitted_changes"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return tags


def data_identity(config: StepConfig) -> list[dict[str, str]]:
    """The finished step folders among the settings, each with the digest of its content; the output is none of them."""
    found = []
    for name, uri in _texts(config):
        folder = Folder(uri) if "/" in uri or Path(uri).is_dir() else None
        try:
            if folder is None or not folder.exists("step.json"):
                continue
            found.append({"name": name, "digest": open_step(uri, command=name).digest, "source": folder.uri})
        except PsreidError:
            continue  # no finished step; the command itself says what is wrong with it
    return found


def _texts(config: StepConfig) -> Iterator[tuple[str, str]]:
    """Every setting that is a text or a list of texts."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "out":
            continue
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from ((name, one) for one in value if isinstance(one, str))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
