"""Where jobs go: a cluster that the user has described in a file, or one of three that need no description.

`~/.config/genae/clusters/NAME.yaml` (under XDG_CONFIG_HOME where that is set) holds what is true of a cluster whatever runs on
it: partition, account, time, setup lines. An experiment's `compute:` says what its rows need, and wins where both speak.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genae.registry import suggestion
from genae.settings import check
from genae.spec import Compute, Resources
from genae.yaml_source import read

BUILT_IN = ("slurm", "local", "debug")
MINUTES = 12 * 60  # of a job, where nobody says: submitit's own 5 would cut every run to pieces
SLOTS = 1000  # a run may go on in so many jobs, one after another


@dataclass(frozen=True, kw_only=True)
class Cluster(Resources):
    """A cluster's file.  cluster: what submitit calls it; "debug" runs in the calling process."""

    cluster: Literal["slurm", "local", "debug"] = "slurm"

    def resources(self, compute: Compute) -> dict[str, Any]:
        """What a run is given here, by submitit's names and `gpus`, `evaluate_in`: the run's wishes before the cluster's."""
        given = {"timeout_min": MINUTES, "slurm_max_num_timeout": SLOTS, "evaluate_in": "own-job", "gpus": 0, "nodes": 1}
        given |= {"cpus_per_task": compute.threads} | self.asked() | compute.asked()
        setup = (*(self.slurm_setup or ()), *(compute.slurm_setup or ()))  # a row's lines come after the cluster's
        if setup:
            given["slurm_setup"] = setup
        flags = (self.slurm_additional_parameters or {}) | (compute.slurm_additional_parameters or {})
        if flags:
            given["slurm_additional_parameters"] = flags
        tasks = max(1, given["gpus"])
        if tasks % given["nodes"]:
            raise ValueError(f"{tasks} gpus cannot be shared out equally over {given['nodes']} nodes")
        given["tasks_per_node"] = tasks // given["nodes"]
        if given["gpus"] and compute.device != "cpu":
            given["gpus_per_node"] = given["tasks_per_node"]
        return given


def folder() -> Path:
    """Where the files of clusters are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "genae" / "clusters"


def find(name: str) -> Cluster:
    """The cluster of this name: a user's file before a built-in one. Raises ValueError, with the names there are."""
    files = {path.stem: path for path in sorted(folder().glob("*.yaml"))}
    if name in files:
        block = read(files[name], "a cluster's file has lines such as `slurm_partition: gpu`")
        return Cluster(**check(Cluster, block, f"cluster {name!r}", block.mark))
    if name in BUILT_IN:
        return Cluster(cluster=name)
    raise ValueError(
        f"there is no cluster {name!r} (files are looked for in {folder()}); {suggestion(name, {*files, *BUILT_IN})}"
    )
