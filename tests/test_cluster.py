"""Clusters: the user's file, what a row asks for, and what submitit is then told."""

import pytest

from genae import cluster
from genae.spec import Compute


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Writes a cluster's file where genae looks for it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def write(name: str, text: str) -> None:
        folder = tmp_path / "genae" / "clusters"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)

    return write


def test_a_row_is_given_what_it_asks_for_and_else_what_its_cluster_says(described):
    described("ours", "slurm_partition: gpu\ntimeout_min: 240\ngpus: 1\n")
    given = cluster.find("ours").resources(Compute(timeout_min=30, threads=3))
    assert given["timeout_min"] == 30
    assert given["slurm_partition"] == "gpu"
    assert given["gpus_per_node"] == given["tasks_per_node"] == 1
    assert given["cpus_per_task"] == 3


def test_setup_lines_and_sbatch_flags_of_row_and_cluster_add_up(described):
    described("ours", "slurm_setup: [module load cuda]\nslurm_additional_parameters: {reservation: lab}\n")
    given = cluster.find("ours").resources(Compute(slurm_setup=("source env",), slurm_additional_parameters={"licenses": "x"}))
    assert list(given["slurm_setup"]) == ["module load cuda", "source env"]
    assert given["slurm_additional_parameters"] == {"reservation": "lab", "licenses": "x"}


def test_a_run_on_the_cpu_asks_for_processes_and_no_gpu(described):
    given = cluster.find("slurm").resources(Compute(gpus=4, nodes=2, device="cpu"))
    assert (given["nodes"], given["tasks_per_node"]) == (2, 2)
    assert "gpus_per_node" not in given


def test_gpus_that_nodes_cannot_share_equally_are_refused(described):
    described("wide", "nodes: 2\n")
    with pytest.raises(ValueError, match="3 gpus cannot be shared out equally over 2 nodes"):
        cluster.find("wide").resources(Compute(gpus=3))


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one(described):
    described("ours", "cluster: slurm\nslurm_partion: gpu\n")
    with pytest.raises(ValueError, match=r"ours.yaml:2: slurm_partion.*slurm_partition"):
        cluster.find("ours")


def test_an_unknown_cluster_is_refused_with_those_there_are(described):
    described("lab-a100", "slurm_partition: a100\n")
    with pytest.raises(ValueError, match=r"there is no cluster 'lab-a10'.*lab-a100"):
        cluster.find("lab-a10")
    with pytest.raises(ValueError, match=r"debug.*local.*slurm|slurm.*local.*debug"):
        cluster.find("x")


def test_a_users_file_comes_before_a_built_in_name(described):
    described("slurm", "slurm_account: lab\n")
    assert cluster.find("slurm").slurm_account == "lab"
    assert cluster.find("local").cluster == "local"


@pytest.mark.parametrize("text", ["", "- slurm_partition: gpu\n"])
def test_a_file_without_a_mapping_is_refused_as_a_clusters(described, text):
    described("ours", text)
    with pytest.raises(ValueError, match=r"ours.yaml:1: the file .*; a cluster's file has lines such as"):
        cluster.find("ours")
