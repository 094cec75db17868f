"""Which packages a machine has, and where two machines differ. Standard library only: it runs where others may lack.

A job's code travels with it, its packages do not. Python counts by major.minor, a build tag such as `+cpu` not at all.
"""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence

COMPARED = ("python", "psreid", "ray", "torch")
ADVICE = (
    "Use an image or environment made with this version's constraints.txt (cluster/images), or install the cluster's "
    "versions here."
)


def installed_versions() -> dict[str, str]:
    """The versions that must be equal here and on the cluster, by name; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in COMPARED[1:]:
        version = _version(name)
        if version is not None:
            found[name] = version
    return found


def declared_requirements() -> list[str]:
    """What psreid needs, such as "av>=18,<19"; empty where psreid runs from a folder without being installed."""
    try:
        declared = importlib.metadata.requires("psreid") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [text for text in declared if ";" not in text]  # those with a marker belong to extras


def differences(wanted: Mapping[str, str], requirements: Sequence[str], *, where: str) -> list[str]:
    """What this machine lacks, or has in another version than `wanted`, one phrase each. `where` names this machine.

    psreid itself may be missing here, because a job brings its code; another version of it marks a stale image.
    """
    found = installed_versions()
    problems = []
    for name, version in wanted.items():
        if name not in found:
            if name != "psreid":
                problems.append(f"{name} is missing {where} ({version} where the job was submitted)")
        elif _comparable(name, found[name]) != _comparable(name, version):
            problems.append(f"{name} is {found[name]} {where} and {version} where the job was submitted")
    return problems + [problem for text in requirements if (problem := _unmet(text, where, wanted))]


def _unmet(requirement: str, where: str, compared: Mapping[str, str]) -> str | None:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.name in compared:
        return None
    found = _version(wanted.name)
    if found is None:
        return f"{wanted.name} is missing {where} ({wanted.name}{wanted.specifier} is needed)"
    if not wanted.specifier.contains(found, prereleases=True):
        return f"{wanted.name} is {found} {where} ({wanted.specifier} is needed)"
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _comparable(name: str, version: str) -> str:
    if name == "python":
        return ".".join(version.split(".")[:2])
    return version.partition("+")[0]
