"""Machines and clusters by name, with prices: the shipped table, or one's own."""

from importlib.resources import files
from typing import Annotated, Any

import yaml
from pydantic import Field

from modeling.errors import ConfigError
from workflows.config import StepConfig, check_settings
from workflows.index.workers import num_cores
from workflows.progress import Price
from workflows.storage import split_uri


class NodeGroup(StepConfig):
    """Nodes of one kind."""

    count: Annotated[int, Field(ge=1)] = 1
    """How many."""
    cpus: Annotated[float, Field(gt=0)]
    """Cores of one node."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one node."""
    price_per_hour: Annotated[float, Field(ge=0)]
    """Of one node, in the table's currency."""


class Shape(StepConfig):
    """A cluster."""

    nodes: Annotated[list[NodeGroup], Field(min_length=1)]
    """Its groups of nodes, the head first."""
    core_speed: Annotated[float, Field(gt=0)] = 1.0
    """Speed of one core beside one of the machine on which the plan is made."""

    @property
    def cpus(self) -> float:
        return sum(group.count * group.cpus for group in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(group.count * group.gpus for group in self.nodes)

    @property
    def price_per_hour(self) -> float:
        return sum(group.count * group.price_per_hour for group in self.nodes)


class ShapeTable(StepConfig):
    """Shapes by name."""

    currency: str = "USD"
    """Of every price."""
    shapes: dict[str, Shape]
    """Name -> cluster."""


class ClusterConfig(StepConfig):
    """The section `cluster` of any command's settings: what it runs on, for plans and for the cost so far."""

    shape: str | None = None
    """Name of a cluster shape."""
    shapes: str | None = None
    """YAML file with one's own shapes; by default the shipped table."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of all machines together; by default the shape's."""
    currency: str | None = None
    """Of `price_per_hour`; by default the table's."""

    def price(self) -> Price | None:
        """What an hour costs; None where neither a price nor a shape is named."""
        if self.shape is None and self.price_per_hour is None:
            return None
        table = read_shapes(self.shapes)
        per_hour = self.price_per_hour
        if per_hour is None and self.shape is not None:
            per_hour = find_shape(table, self.shape).price_per_hour
        return Price(per_hour or 0.0, self.currency or table.currency)


def read_shapes(file: str | None) -> ShapeTable:
    """The shapes of a file, or the shipped ones; ConfigError names what is wrong with a file."""
    if file is None:
        return ShapeTable.model_validate(yaml.safe_load((files("workflows.plan") / "shapes.yaml").read_text()))
    folder, name = split_uri(file)
    try:
        values: Any = yaml.safe_load(folder.read_bytes(name))
        return check_settings(ShapeTable, values)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}. `workflows/plan/shapes.yaml` shows the form.") from error


def find_shape(table: ShapeTable, name: str) -> Shape:
    """The shape of that name; ConfigError lists those there are."""
    if name not in table.shapes:
        raise ConfigError(f"there is no cluster shape {name!r}. There are {', '.join(table.shapes)}.")
    return table.shapes[name]


def this_machine() -> Shape:
    """The machine that this process runs on; it costs nothing."""
    return Shape(nodes=[NodeGroup(cpus=num_cores(), gpus=_num_gpus(), price_per_hour=0.0)])


def _num_gpus() -> float:
    import sys

    torch = sys.modules.get("torch")  # a plan that did not need torch needs no GPU
    return float(torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else 0.0
