"""What clusters do to a run in the middle of training: it comes to the weights of a run that nobody disturbed, bit for bit."""

import pytest

from genae.rundir import read_json

pytestmark = pytest.mark.slurm

IN_ONE_JOB = {"evaluate_in": "same-job"}
BY_SIGNAL_ALONE = {"checkpoint_seconds": 3600}  # no checkpoint but those that a signal asks for
WITH_THE_GPU = {"slurm_gres": "gpu:1"}


def take_the_gpu(project) -> None:
    """Preempt the job that runs: a more urgent one wants its node's GPU, for a moment."""
    [job] = [job for job in project.jobs() if job["JobState"] == "RUNNING"]
    where = ["--partition=urgent", "--gres=gpu:1", f"--nodelist={job['NodeList']}", "--output=/dev/null", "--chdir=/"]
    project.cluster.ask("sbatch", *where, "--wrap=sleep 1")


def test_a_run_preempted_twice_with_requeue(project, undisturbed):
    project.write(IN_ONE_JOB | BY_SIGNAL_ALONE | WITH_THE_GPU | {"slurm_partition": "gpu"})
    project.slow_from(150)  # in the fade-in
    project.launch()
    project.until_seen(150)
    take_the_gpu(project)
    project.slow_from(350)  # faded in: the encoder sees images of the pool
    place = project.until_seen(350, start=2)
    take_the_gpu(project)
    project.until(lambda: len(read_json(place.provenance)) == 3, "it starts for the third time")
    project.slow_no_more()
    project.until_done()
    [job] = project.trainings()
    assert job["Restarts"] == "2"
    assert project.digests() == undisturbed()


@pytest.mark.parametrize("project", ["cluster_without_warning"], indirect=True)
def test_a_run_that_hears_of_its_preemption_by_sigterm_alone_is_requeued_before_it_is_measured(project, undisturbed):
    project.write(BY_SIGNAL_ALONE | WITH_THE_GPU | {"slurm_partition": "gpu"})  # evaluated by a job of its own
    project.slow_from(150)
    project.launch()
    place = project.until_seen(150)
    take_the_gpu(project)
    project.until(lambda: len(read_json(place.provenance)) == 2, "it starts again")
    project.slow_no_more()
    project.until_done()
    [job] = project.trainings()
    assert job["Restarts"] == "1"
    assert project.digests() == undisturbed()


@pytest.mark.parametrize("project", ["cluster_without_warning"], indirect=True)
def test_a_run_cancelled_by_preemption_is_what_the_second_launch_submits(project, undisturbed):
    compute = IN_ONE_JOB | BY_SIGNAL_ALONE | WITH_THE_GPU | {"slurm_partition": "scavenge"}
    project.write(compute, rows={"row": {}, "other": {"pool_size": 5}})
    project.launch("--rows", "other")
    project.until_done("other")
    project.slow_from(150)
    project.launch()
    project.until_seen(150)
    take_the_gpu(project)
    project.until_idle()
    assert project.states()["row/fashion-mnist/s0"]["state"] == "lost"
    project.slow_no_more()
    project.launch()
    project.until_done()
    assert [job["Restarts"] for job in project.trainings()] == ["0", "0", "0"]  # other, row, row again
    assert project.digests() == undisturbed()


def test_a_launch_that_watches_submits_again_what_is_lost(project, undisturbed):
    project.write(IN_ONE_JOB | {"slurm_partition": "steady"})
    project.slow_from(150)
    watching = project.start("launch", "table", "--cluster", "slurm", "--watch")
    project.until_seen(150)
    [job] = project.trainings()
    project.cluster.ask("scancel", job["JobId"])
    project.until(lambda: len(project.trainings()) == 2, "it is submitted again")
    project.slow_no_more()
    assert "submitted again: row/fashion-mnist/s0" in project.said(watching)
    project.until_done()
    assert project.digests() == undisturbed()


def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_slot(project, undisturbed):
    project.niceness = 0  # a slot must not be over before its training has begun
    project.write(IN_ONE_JOB | BY_SIGNAL_ALONE | {"slurm_partition": "steady", "timeout_min": 2, "slurm_signal_delay_s": 15})
    project.slow_from(50, seconds=4)
    project.launch()
    place = project.until_seen(50)
    project.until(lambda: len(read_json(place.provenance)) == 2, "it starts in a second slot")
    project.slow_no_more()
    project.until_done()
    assert project.digests() == undisturbed()


@pytest.mark.parametrize("project", ["cluster_to_break"], indirect=True)
def test_a_run_whose_node_dies_goes_on_on_the_other(project, undisturbed):
    project.write(IN_ONE_JOB | {"slurm_partition": "steady"})
    project.slow_from(150)
    project.launch()
    place = project.until_seen(150)
    [before] = project.trainings()
    project.cluster.kill_node(before["NodeList"])
    project.until(lambda: len(read_json(place.provenance)) == 2, "it starts again")
    project.slow_no_more()
    project.until_idle()
    [after] = project.trainings()
    assert {before["NodeList"], after["NodeList"]} == {"node1", "node2"}
    assert project.states()["row/fashion-mnist/s0"]["state"] == "done"
    assert project.digests() == undisturbed()


def test_a_node_that_is_broken_fails_the_run_and_is_left_out_when_it_is_retried(project, undisturbed):
    project.write(IN_ONE_JOB | {"slurm_partition": "steady"})
    project.broken.write_text("node1 node2")
    project.launch()
    project.until_idle()
    [failed] = project.trainings()
    [state] = project.states().values()
    assert (state["state"], state["node"]) == ("failed", failed["NodeList"])
    assert f"node {failed['NodeList']} cannot write" in state["reason"]
    project.broken.write_text(failed["NodeList"])
    project.genae("retry", "table")
    project.until_done()
    [again] = [job for job in project.trainings() if job["JobId"] != failed["JobId"]]
    assert again["ExcNodeList"] == failed["NodeList"]
    assert again["NodeList"] != failed["NodeList"]
    assert project.digests() == undisturbed()
