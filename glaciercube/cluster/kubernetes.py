"""What the dask-kubernetes operator is asked for.

make_cluster_spec of dask-kubernetes 2026.3 asks for the programs dask-scheduler and dask-worker, which distributed
2026.8 does not install any more; so the resource is written here.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from glaciercube.cluster.options import ClusterOptions
from glaciercube.errors import ConfigError, require

__all__ = ["cluster_spec"]

Json = dict[str, Any]

# What the keywords of KubeCluster say about the resource; others say how it is reached and waited for.
_WRITTEN: Final = ("name", "image", "env", "resources", "custom_cluster_spec", "pod")
_PORTS: Final = {"tcp-comm": 8786, "http-dashboard": 8787}


def cluster_spec(options: ClusterOptions, environment: Mapping[str, str]) -> tuple[Json, Json]:
    """The DaskCluster resource of a run, and the other keywords of `dask_kubernetes.operator.KubeCluster`.

    Parameters
    ----------
    options : ClusterOptions
        In its ``options``: ``image`` (with the same versions as here), ``name``, ``env`` (mapping), ``resources``
        (Kubernetes', of each worker, such as ``{limits: {nvidia.com/gpu: 1}}``), ``pod`` (more of the pods' spec, such
        as tolerations or a service account), or a whole ``custom_cluster_spec`` instead.
    environment : mapping
        Environment variables of all pods.

    Raises
    ------
    ConfigError
        If there is no image.
    """
    given = {name: value for name, value in options.options.items() if name in _WRITTEN}
    rest = {name: value for name, value in options.options.items() if name not in _WRITTEN}
    if "custom_cluster_spec" in given:
        require(len(given) == 1, "custom_cluster_spec says all of the resource", f"leave out {', '.join(given)}")
        return given["custom_cluster_spec"], rest
    if "image" not in given:
        raise ConfigError(
            "a kubernetes cluster needs an image with the versions of this process",
            "build deploy/Dockerfile, push it, and name it in cluster.options.image",
        )
    # Two runs at once are two clusters.
    name = given.get("name") or f"glaciercube-{secrets.token_hex(4)}"
    variables = [{"name": key, "value": str(value)} for key, value in {**environment, **given.get("env", {})}.items()]
    common = {"image": given["image"], "env": variables}
    pod = given.get("pod", {})
    worker = {"replicas": options.processes, "spec": {**pod, "containers": [_worker(options, common, given)]}}
    scheduler = {"spec": {**pod, "containers": [_scheduler(common)]}, "service": _service(name)}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {"worker": worker, "scheduler": scheduler},
    }, rest


def _worker(options: ClusterOptions, common: Json, given: Json) -> Json:
    # Quantities are text there, and numbers in a user's YAML.
    resources: Json = {
        key: {name: str(quantity) for name, quantity in value.items()}
        for key, value in given.get("resources", {}).items()
    }
    # Kubernetes has dask's units without the B.
    memory = {"memory": options.memory.replace(" ", "").removesuffix("B")} if options.memory else {}
    resources["requests"] = {"cpu": str(options.threads), **memory, **resources.get("requests", {})}
    if memory:
        # By the limit dask knows when to spill and to pause, before Kubernetes ends the worker.
        resources["limits"] = {**memory, **resources.get("limits", {})}
    # Its scheduler's address comes by the environment, from the operator; its memory from its limit (cgroup).
    command = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nworkers", "1"]
    return {
        "name": "worker",
        **common,
        "command": [*command, "--nthreads", str(options.threads), "--dashboard-address", ":8788"],
        "resources": resources,
        "ports": [{"name": "http-dashboard", "containerPort": 8788, "protocol": "TCP"}],
    }


def _scheduler(common: Json) -> Json:
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    return {
        "name": "scheduler",
        **common,
        # The entry point of an image may be something else.
        "command": ["dask", "scheduler", "--host", "0.0.0.0"],  # noqa: S104 - a pod's own address is not known
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS.items()],
        "readinessProbe": {**health, "periodSeconds": 1, "timeoutSeconds": 300},
        "livenessProbe": {**health, "initialDelaySeconds": 15, "periodSeconds": 20},
    }


def _service(name: str) -> Json:
    ports = [{"name": port, "protocol": "TCP", "port": number, "targetPort": port} for port, number in _PORTS.items()]
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    return {"type": "ClusterIP", "selector": selector, "ports": ports}
