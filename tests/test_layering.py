"""Imports run one way: ray_jobs -> workflows -> modeling; and modeling runs wherever torch and transformers do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("modeling", "workflows", "ray_jobs")  # from the bottom up
FORBIDDEN_IN_MODELING = ("ray", "deepspeed", "mlflow", "pyarrow")
RAY_DATA_HOMES = {"workflows/runner.py", "workflows/train/catalogue.py"}  # steps, and what training reads

IMPORT_ALL_OF_MODELING = """
import importlib, pkgutil, sys
for name in {blocked}:
    sys.modules[name] = None  # a later `import` of it raises ImportError
import modeling
names = [m.name for m in pkgutil.walk_packages(modeling.__path__, "modeling.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import anywhere in a file; relative ones are refused."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"line {node.lineno}: a relative import; write the full module name")
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(layer: str, forbidden: tuple[str, ...]) -> list[str]:
    """Where a layer imports a package it must not know."""
    return [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sorted((ROOT / layer).rglob("*.py"))
        for line, module in imports_of(file.read_text())
        if module.partition(".")[0] in forbidden
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_imports_one_above_it(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    assert violations(layer, (*above, "tests")) == []


def test_modeling_knows_no_orchestration_and_no_tables() -> None:
    assert violations("modeling", FORBIDDEN_IN_MODELING) == []


def test_only_the_runner_and_training_call_ray_data() -> None:
    found = [
        text for text in violations("workflows", ("ray",)) + violations("ray_jobs", ("ray",)) if "ray.data" in text
    ]
    assert {text.partition(":")[0] for text in found} == RAY_DATA_HOMES


def test_the_walk_sees_imports_inside_functions() -> None:
    source = "def f():\n    from ray.data import Dataset\n    import pyarrow.parquet as pq\n"
    assert list(imports_of(source)) == [(2, "ray.data.Dataset"), (3, "pyarrow.parquet")]


def test_every_module_of_modeling_imports_without_ray() -> None:
    program = IMPORT_ALL_OF_MODELING.format(blocked=FORBIDDEN_IN_MODELING)
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 20
