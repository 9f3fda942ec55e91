"""What `deploy/` shows can be used as it stands; of Kubernetes, what can be told without a cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client
from services import Missing
from services.process import HOST, free_ports, program

from glaciercube.cluster import ClusterOptions, connect
from glaciercube.cluster.kubernetes import cluster_spec
from glaciercube.config import load_config
from glaciercube.errors import ClusterError, ConfigError

DEPLOY = Path(__file__).parents[1] / "deploy"
Json = dict[str, Any]


def needs(module: str) -> Any:
    """Import what `make install-services` installs."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        absent(f"{module} is not installed (make install-services)")
    return importlib.import_module(module)


def absent(what: str) -> None:
    if os.environ.get("GLACIERCUBE_SERVICES") == "required":
        pytest.fail(f"GLACIERCUBE_SERVICES=required, and {what}")
    pytest.skip(what)


@pytest.mark.parametrize("kind", ["gateway", "kubernetes", "local", "slurm"])
def test_an_example_is_understood(kind: str) -> None:
    config = load_config(DEPLOY / kind / "job.yaml")
    assert config.cluster.kind == kind
    assert (DEPLOY / kind / "README.md").is_file()
    # The same job everywhere; paths of this machine are no place for workers of others.
    assert (config.region.name, config.model.name, config.time) == ("khumbu", "fusion-unet", "2015/2024")
    assert ("://" in config.store.path) == (kind in ("gateway", "kubernetes"))


def test_there_is_no_other_example() -> None:
    assert {path.parent.name for path in DEPLOY.rglob("*.y*ml")} == {"gateway", "kubernetes", "local", "slurm"}


@pytest.mark.parametrize("kind", ["gateway", "kubernetes", "local", "slurm"])
def test_what_an_example_needs_is_installed_for_it(kind: str) -> None:
    config = load_config(DEPLOY / kind / "job.yaml")
    needed = {"cluster", str(config.catalog), *(["s3"] if config.store.path.startswith("s3://") else ())}
    texts = ((DEPLOY / kind / "README.md").read_text(), (DEPLOY / "Dockerfile").read_text())
    for text in texts:
        (extras,) = re.findall(r"'(?:glaciercube|\.)\[(.+)\]'", text)
        assert needed <= set(extras.split(","))


def test_the_image_takes_the_command_that_it_is_given() -> None:
    # Dask Gateway on Kubernetes and JupyterHub set a container's arguments, which an entry point would swallow.
    words = [line.split(maxsplit=1)[0] for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.strip()]
    assert "CMD" in words
    assert "ENTRYPOINT" not in words


def test_what_the_examples_ask_of_slurm_and_the_gateway_exists() -> None:
    jobqueue, gateway = needs("dask_jobqueue.slurm"), needs("dask_gateway")
    import inspect

    slurm = dict(load_config(DEPLOY / "slurm" / "job.yaml").cluster.options)
    job = jobqueue.SLURMJob(scheduler="tcp://10.0.0.1:8786", name="worker", cores=8, memory="32GiB", **slurm)
    script = job.job_script()
    for line in ("-p gpu", "-A glaciers", "-t 12:00:00", "--gres=gpu:1", "--mem=32G"):
        assert f"#SBATCH {line}" in script
    known = inspect.signature(gateway.Gateway.__init__).parameters
    assert "address" in known
    assert set(load_config(DEPLOY / "gateway" / "job.yaml").cluster.options) & set(known) == {"address"}


def test_the_image_is_built_by_the_book() -> None:
    try:
        hadolint = program("hadolint")
    except Missing as missing:
        absent(str(missing))
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def example() -> tuple[Json, Json]:
    return cluster_spec(load_config(DEPLOY / "kubernetes" / "job.yaml").cluster, {"OMP_NUM_THREADS": "1"})


def closed(schema: Json) -> Json:
    """The same schema, but keys that it does not know are errors: Kubernetes would drop them silently."""
    out: Json = {key: closed(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if "properties" in out and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def test_the_resource_for_the_dask_operator_holds_against_its_own_definition() -> None:
    package, jsonschema = needs("dask_kubernetes"), needs("jsonschema")
    (path,) = Path(package.__file__).parent.rglob("crds/daskcluster.yaml")
    definition = yaml.safe_load(path.read_text())["spec"]["versions"][0]
    schema = closed(definition["schema"]["openAPIV3Schema"])
    spec, rest = example()
    assert (spec["apiVersion"], spec["kind"]) == (f"kubernetes.dask.org/{definition['name']}", "DaskCluster")
    jsonschema.validate({"spec": spec["spec"]}, schema)
    assert rest == {"namespace": "glaciers"}
    # It can fail.
    spec["spec"]["worker"]["spec"]["tolerance"] = []
    with pytest.raises(jsonschema.ValidationError, match="tolerance"):
        jsonschema.validate({"spec": spec["spec"]}, schema)


def test_the_resource_says_what_the_setting_says() -> None:
    spec, _ = example()
    worker, scheduler = spec["spec"]["worker"], spec["spec"]["scheduler"]
    (container,) = worker["spec"]["containers"]
    assert worker["replicas"] == 8
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
    }
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert variables == {"OMP_NUM_THREADS": "1", "AWS_REGION": "eu-central-1"}
    assert worker["spec"]["serviceAccountName"] == scheduler["spec"]["serviceAccountName"] == "glaciercube"
    # The scheduler needs no GPU.
    assert "resources" not in scheduler["spec"]["containers"][0]
    assert spec["metadata"]["name"] == scheduler["service"]["selector"]["dask.org/cluster-name"]
    assert example()[0]["metadata"]["name"] != spec["metadata"]["name"]


def test_a_cluster_without_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs an image with the versions of this process: build deploy/Dockerfile"):
        cluster_spec(ClusterOptions("kubernetes"), {})
    own = {"metadata": {"name": "mine"}}
    assert cluster_spec(ClusterOptions("kubernetes", options={"custom_cluster_spec": own}), {}) == (own, {})
    with pytest.raises(ConfigError, match="custom_cluster_spec says all of the resource"):
        cluster_spec(ClusterOptions("kubernetes", options={"custom_cluster_spec": own, "image": "x"}), {})


def test_kubernetes_is_asked_for_that_resource_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = needs("dask_kubernetes.operator")
    asked: list[Json] = []

    class Cluster:
        def __init__(self, **given: Any) -> None:
            asked.append(given)
            raise ConnectionError("no kubeconfig here")

    monkeypatch.setattr(operator, "KubeCluster", Cluster)
    options = load_config(DEPLOY / "kubernetes" / "job.yaml").cluster
    told = r"no kubernetes cluster could be started \(ConnectionError: no kubeconfig here\): check cluster.options"
    with pytest.raises(ClusterError, match=told), connect(options):
        pass
    (given,) = asked
    assert (given["namespace"], given["quiet"], "image" in given) == ("glaciers", True, False)
    assert given["custom_cluster_spec"]["spec"]["worker"]["replicas"] == 8


@contextmanager
def pod(container: Json, environ: Json, *more: str) -> Iterator[None]:
    """Run a container's command as Kubernetes would, on this machine."""
    variables = {**os.environ, **environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [
        part.replace("$(DASK_WORKER_NAME)", environ.get("DASK_WORKER_NAME", "")) for part in container["command"]
    ]
    with subprocess.Popen([*command, *more], env=variables, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def test_the_commands_of_the_pods_make_a_cluster() -> None:
    controller = needs("dask_kubernetes.operator.controller.controller")
    spec, _ = example()
    (scheduler,), (worker,) = (spec["spec"][name]["spec"]["containers"] for name in ("scheduler", "worker"))
    deployment = controller.build_worker_deployment_spec(
        "group", "glaciers", "test", "1", spec["spec"]["worker"]["spec"], {}, {}
    )
    # What the operator adds.
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert environ["DASK_SCHEDULER_ADDRESS"] == "tcp://test-scheduler.glaciers.svc.cluster.local:8786"
    (port,) = free_ports(1)
    address = f"tcp://{HOST}:{port}"
    with ExitStack() as stack:
        # Ports of a pod are its own; those of this machine are not.
        stack.enter_context(pod(scheduler, {}, "--port", str(port), "--dashboard-address", ":0"))
        environ["DASK_SCHEDULER_ADDRESS"] = address
        stack.enter_context(pod(worker, environ, "--dashboard-address", ":0", "--no-dashboard"))
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(1, timeout=60)
        (found,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert (found["name"], found["nthreads"]) == ("group-worker-1", 8)
        assert client.submit(os.getenv, "AWS_REGION").result() == "eu-central-1"
