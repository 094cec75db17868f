"""What `psreid evaluate --table` and `psreid evaluate reid --table` share: stored results, and how they are read out.

A stored table is one small JSON file, table-N.json, with a version, the command that made it, and one record for each
variant and seed.
"""

import statistics
from collections.abc import Sequence
from importlib import resources
from typing import Any

from modeling.errors import DataError
from workflows.storage import JSON, Folder

RESULTS_VERSION = 1


def results_folder(asked: str | None, *, package: str) -> Folder:
    """Where stored tables lie: as asked, else in the package of the step."""
    return Folder(asked or str(resources.files(package).joinpath("results")))


def table_file(number: int) -> str:
    """The name of a stored table."""
    return f"table-{number}.json"


def read_stored(folder: Folder, number: int, *, made_by: str) -> dict[str, Any]:
    """A stored table; DataError with the command that makes it where there is none, or one of another version."""
    name = table_file(number)
    if not folder.exists(name):
        raise DataError(f"there are no results of table {number} in {folder.uri}. Run its variants first: {made_by}")
    stored: dict[str, Any] = folder.read_json(name)
    if stored.get("version") != RESULTS_VERSION:
        raise DataError(f"{folder.path(name)} has version {stored.get('version')}, this psreid reads {RESULTS_VERSION}")
    return stored


def put_setting(values: dict[str, Any], key: str, value: JSON) -> None:
    """Sets a dotted key that is there already."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values[parent]
    values[last] = value


def mean_and_spread(fractions: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds, percent; "-" where no seed has a value."""
    values = [100 * value for value in fractions if value is not None]
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f}" + (f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else "")


def paper_figures(figures: Sequence[float | None] | None) -> str:
    """The paper's figures, percent, in the order of the columns."""
    return "-" if figures is None else " ".join("   -" if value is None else f"{value:4.1f}" for value in figures)
