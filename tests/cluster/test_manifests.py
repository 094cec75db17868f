"""Manifests and images: valid by KubeRay's and Ray's own schemas, equal to what `psreid submit` prints, pinned."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeling.errors import ConfigError
from ray_jobs.submission.cluster_spec import ray_cluster_spec
from ray_jobs.submission.config import SubmitConfig
from ray_jobs.submission.kubernetes import build_manifest

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
MANIFESTS = sorted([*CLUSTER.glob("kuberay/*.yaml"), *CLUSTER.glob("aws/*.yaml")])
IMAGES = sorted(CLUSTER.glob("images/*.Dockerfile"))
SEARCH = ("search", "s3://archive/index", "s3://archive/found", "--text", "red coat, black backpack")
INGEST = ("ingest", "s3://footage/gate", "s3://archive/frames", "--fps", "2")
INDEX = ("index", "s3://archive/frames", "s3://archive/index")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "kuberay" / name).read_text())


def constraints() -> dict[str, str]:
    lines = (CLUSTER.parent / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def validator() -> Path:
    shared = os.environ.get("PSREID_SHARED")
    if not shared:
        pytest.skip("PSREID_SHARED names no folder with the schemas of KubeRay and Ray")
    return Path(shared) / "manifests" / "validate.py"


def validate(paths: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(validator()), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_manifest_is_valid() -> None:
    done = validate(MANIFESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(MANIFESTS)} Ray documents, 0 invalid"


def test_the_validator_sees_a_misspelt_field(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text((CLUSTER / "kuberay/rayjob.yaml").read_text().replace("backoffLimit", "backOffLimit"))
    assert validate([broken]).returncode == 1


def test_the_job_in_the_folder_is_the_one_that_submit_prints() -> None:
    config = SubmitConfig(words=(*SEARCH, "--gpus-per-actor", "1"), kuberay=True)
    assert nameless(read("rayjob.yaml")) == nameless(build_manifest(config))


def test_the_cron_job_in_the_folder_is_the_one_that_submit_prints() -> None:
    config = SubmitConfig(words=(*INGEST, "--", *INDEX), cron="0 2 * * *", time_zone="Europe/Berlin")
    assert nameless(read("raycronjob.yaml")) == nameless(build_manifest(config))


def nameless(manifest: Any) -> Any:
    """Without the digits of the name, which change whenever a command gains a setting."""
    metadata = manifest["metadata"]
    return manifest | {"metadata": metadata | {"name": metadata["name"].rpartition("-")[0]}}


def test_the_standing_cluster_is_the_one_that_jobs_bring() -> None:
    version = importlib.metadata.version("psreid")
    images = {"image": f"psreid:{version}-cpu", "gpu_image": f"psreid:{version}-gpu"}
    assert read("raycluster.yaml")["spec"] == ray_cluster_spec(**images, cpu_workers=8, gpu_workers=4)


def test_secrets_are_named_never_written() -> None:
    spec = read("raycluster.yaml")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for container in (group["template"]["spec"]["containers"][0] for group in groups):
        assert container["envFrom"] == [{"secretRef": {"name": "psreid-s3"}}]
        assert not any("AWS" in variable["name"] for variable in container["env"])
    assert spec["authOptions"] == {"mode": "token"}


def test_a_path_that_a_pod_does_not_have_is_refused() -> None:
    for place in ("/data/index", "work/index"):
        with pytest.raises(ConfigError, match="path of this machine"):
            build_manifest(SubmitConfig(words=("search", place, "s3://b/out", "--text", "red coat"), kuberay=True))


def test_options_reach_the_manifest() -> None:
    config = SubmitConfig(
        words=SEARCH, kuberay=True, namespace="cases", image="r/p:1", gpu_image="r/g:1", gpu_workers=9
    )
    manifest = build_manifest(config)
    cluster = manifest["spec"]["rayClusterSpec"]
    assert manifest["metadata"]["namespace"] == "cases"
    assert cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == "r/p:1"
    judges = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu-judge")
    assert judges["maxReplicas"] == 9 and judges["template"]["spec"]["containers"][0]["image"] == "r/g:1"


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_images_have_the_versions_of_the_constraints(image: Path) -> None:
    text = image.read_text()
    stated = {name.lower(): version for name, version in re.findall(r"^ARG (\w+)_VERSION=(\S+)$", text, re.M)}
    assert stated.keys() >= {"ray", "torch", "torchvision"}
    assert stated == {name: constraints()[name] for name in stated}
    installs = re.findall(r"^RUN pip install(?:[^\n\\]|\\\n)*", text, re.M)
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert not re.findall(r"==\d", text), "a version is written where constraints.txt does not see it"


def test_manifests_name_the_ray_and_the_images_of_this_version() -> None:
    version = importlib.metadata.version("psreid")
    for path in MANIFESTS:
        text = path.read_text()
        assert set(re.findall(r"psreid:([\d.]+)-", text)) == {version}, path
        assert set(re.findall(r"rayVersion: (\S+)", text)) <= {constraints()["ray"]}, path
