"""The files for Slurm and Kubernetes name only what exists: torchrun's options, config keys, fields of a PyTorchJob.

The batch script was run on slurmctld 22.05, and the PyTorchJob held against the classes of kubeflow-training 1.9.4.
"""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from arcface_edu.config import load_config

DEPLOY = Path(__file__).parents[1] / "deploy"
SBATCH = DEPLOY / "slurm" / "train.sbatch"
POD = {"terminationGracePeriodSeconds", "containers", "volumes"}
CONTAINER = {"name", "image", "command", "env", "ports", "resources", "volumeMounts"}
# Where in a PyTorchJob, and the fields that its CRD (kubeflow.org/v1) and Kubernetes have there.
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"elasticPolicy", "runPolicy", "pytorchReplicaSpecs", "nprocPerNode"},
    "spec.elasticPolicy": {
        "rdzvBackend",
        "rdzvId",
        "minReplicas",
        "maxReplicas",
        "maxRestarts",
        "rdzvPort",
        "rdzvHost",
    },
    "spec.runPolicy": {"cleanPodPolicy", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "suspend"},
    "spec.pytorchReplicaSpecs": {"Worker"},
    "spec.pytorchReplicaSpecs.Worker": {"replicas", "restartPolicy", "template"},
    "spec.pytorchReplicaSpecs.Worker.template": {"spec"},
    "spec.pytorchReplicaSpecs.Worker.template.spec": POD,
}


@functools.cache
def options_of_torchrun():
    said = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--help"], capture_output=True, text=True)
    return set(re.findall(r"--[a-z][a-z-]+", said.stdout))


def split_command(words):
    """(options of torchrun, words for the training command) of `torchrun ... -m arcface_edu.train ...`."""
    place = words.index("arcface_edu.train")
    assert words[0] == "torchrun" and words[place - 1] == "-m"
    return {word.split("=")[0] for word in words[1 : place - 1]}, words[place + 1 :]


@pytest.fixture(scope="module")
def job():
    return next(thing for thing in read_kubernetes() if thing["kind"] == "PyTorchJob")


def read_kubernetes():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "pytorchjob.yaml").read_text()))


def test_the_batch_script_is_bash():
    subprocess.run(["bash", "-n", SBATCH], check=True)


def test_the_batch_script_asks_torchrun_for_what_it_has():
    launch = re.search(r"torchrun \\\n.*? &$", SBATCH.read_text(), re.DOTALL | re.MULTILINE)[0]
    options, words = split_command(shlex.split(launch.replace("\\\n", "").removesuffix("&")))
    assert {"--nnodes", "--max-restarts"} <= options <= options_of_torchrun()
    assert words == ["$@", "resume=True"]  # behind the user's words, or a job that queues again would begin anew


def test_the_options_of_the_batch_script_stand_where_slurm_reads_them():
    lines = SBATCH.read_text().splitlines()
    first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    options = [n for n, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert len(options) >= 5 and max(options) < first_command


def test_a_pytorchjob_has_only_fields_that_exist(job):
    for path, names in FIELDS.items():
        part = functools.reduce(lambda thing, name: thing[name], path.split(".") if path else [], job)
        assert part.keys() <= names, path
    (container,) = pod_of(job)["containers"]
    assert container.keys() <= CONTAINER
    assert (job["apiVersion"], container["name"]) == ("kubeflow.org/v1", "pytorch")
    assert [port["name"] for port in container["ports"]] == ["pytorchjob-port"]
    replicas, policy = job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"], job["spec"]["elasticPolicy"]
    assert policy["minReplicas"] <= replicas <= policy["maxReplicas"]


def pod_of(job):
    return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]


def test_a_pytorchjob_mounts_what_it_claims(job):
    pod = pod_of(job)
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert [mount["name"] for mount in container["volumeMounts"]] == list(volumes)
    claims = [thing["metadata"]["name"] for thing in read_kubernetes() if thing["kind"] == "PersistentVolumeClaim"]
    assert claims == [v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "emptyDir" not in v]
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_a_pytorchjob_starts_a_training_that_can_be_started(job):
    (container,) = pod_of(job)["containers"]
    options, words = split_command(container["command"])
    assert options <= options_of_torchrun()
    config = load_config("own_data", words)
    assert config.resume
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert all(any(path.startswith(place) for place in mounted) for path in (config.rec, config.output))
