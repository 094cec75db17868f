"""The Ray cluster that a KubeRay manifest asks for: a head that only manages, CPU workers that decode and embed, GPU
workers that judge; both groups grow from nothing and may run on spot machines.

Secrets are made beforehand and named here: `psreid-s3` (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) is
read into the environment of every pod. The token is made by KubeRay, because `authOptions` asks for it.
"""

import importlib.metadata
from typing import Any

S3_SECRET = "psreid-s3"
IDLE_TIMEOUT_S = 300
DRAIN_S = 60  # from the notice that a pod must go to its end
SPOT_TAINTS = (
    "cloud.google.com/gke-spot",
    "kubernetes.azure.com/scalesetpriority",
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
)
RAYLET_HEALTH = "wget -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
HEAD_HEALTH = f"{RAYLET_HEALTH} && wget -T 5 -q -O- http://localhost:8265/api/gcs_healthz | grep success"


def ray_cluster_spec(*, image: str, gpu_image: str, cpu_workers: int, gpu_workers: int) -> dict[str, Any]:
    """`spec` of a RayCluster; `cpu_workers` and `gpu_workers` are the most that each group grows to."""
    return {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "networkPolicy": {"mode": "DenyAllIngress"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": IDLE_TIMEOUT_S,
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "1Gi"}},
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _pod("ray-head", image, cpu=4, memory_gib=16, health=HEAD_HEALTH, ports=True),
        },
        "workerGroupSpecs": [
            _workers("cpu-decode", cpu_workers, _pod("ray-worker", image, cpu=8, memory_gib=32, on_spot=True)),
            _workers(
                "gpu-judge", gpu_workers, _pod("ray-worker", gpu_image, cpu=8, memory_gib=64, gpus=1, on_spot=True)
            ),
        ],
    }


def _workers(name: str, most: int, template: dict[str, Any]) -> dict[str, Any]:
    return {
        "groupName": name,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": template,
    }


def _pod(
    container: str,
    image: str,
    *,
    cpu: int,
    memory_gib: int,
    gpus: int = 0,
    health: str = RAYLET_HEALTH,
    ports: bool = False,
    on_spot: bool = False,
) -> dict[str, Any]:
    """A pod template. Requests equal limits: a pod that may use more than it asked for is the first to be evicted."""
    resources: dict[str, Any] = {"cpu": str(cpu), "memory": f"{memory_gib}Gi"}
    if gpus:
        resources["nvidia.com/gpu"] = gpus
    body: dict[str, Any] = {
        "name": container,
        "image": image,
        "envFrom": [{"secretRef": {"name": S3_SECRET}}],
        "env": [{"name": "RAY_worker_niceness", "value": "0"}],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "readinessProbe": _probe(health, every_s=10, failures=6),
        "livenessProbe": _probe(health, every_s=30, failures=10),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if ports:
        named = {"gcs": 6379, "dashboard": 8265, "metrics": 8080}
        body["ports"] = [{"name": name, "containerPort": port} for name, port in named.items()]
    else:
        body["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}
    shared_memory = {"medium": "Memory", "sizeLimit": f"{memory_gib * 3 // 10}Gi"}
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": DRAIN_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "containers": [body],
        "volumes": [{"name": "shared-memory", "emptyDir": shared_memory}],
    }
    if on_spot:
        tolerated = [{"key": key, "operator": "Exists"} for key in SPOT_TAINTS]
        spec["tolerations"] = tolerated + ([{"key": "nvidia.com/gpu", "operator": "Exists"}] if gpus else [])
        spec["automountServiceAccountToken"] = False
    return {"spec": spec}


def _probe(command: str, *, every_s: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": ["/bin/sh", "-c", command]},
        "initialDelaySeconds": 10,
        "periodSeconds": every_s,
        "timeoutSeconds": 8,
        "failureThreshold": failures,
    }
