"""Which Ray a sweep runs on: one that it starts, or a cluster that is there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray  # after finesweep has set it up
from tests.contract.scripted import ScriptedTrainer
from tests.contract.stored_sweep import GRID, StoredSweep, assert_whole, climbing, no_tick
from tests.contract.test_ray_backend import Gathering

from finesweep.errors import ResourcesError
from finesweep.events import AttemptDescribed, AttemptResult, Ending, Report, TrialSpec, TrialState
from finesweep.scheduling.ray_start import LocalRay, reclaim_sigterm
from finesweep.scheduling.ray_tune import RayBackend
from finesweep.scheduling.slots import Slots
from finesweep.spec.sweep import Resources
from finesweep.trainer import Reporter

MakeSweep = Callable[..., StoredSweep]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start two nodes with a CPU each, that nobody is connected to."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def test_trials_run_on_all_nodes_of_a_cluster_that_is_there(
    cluster: Any, tmp_path: Path, make_sweep: MakeSweep
) -> None:
    sweep = make_sweep(trials=3, pruner={"type": "none"})
    broker = sweep.broker()
    trainer = Gathering(tmp_path / "gathered", together=2, linger_s=0.2)
    resources = Resources(address=cluster.address)
    RayBackend(trainer, resources, None, log_dir=tmp_path).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert {record.state for record in sweep.history().trials} == {TrialState.COMPLETE}
    assert len({event.facts["node_id"] for event in sweep.heard(AttemptDescribed)}) == 2
    assert not ray.is_initialized()

    demanding = Resources(address=cluster.address, cpus_per_trial=2)  # the nodes have so many together only
    message = r"a trial takes 2 CPU and 0 GPU, more than any node of this Ray has \(1 CPU and 0 GPU; 1 CPU and 0 GPU\)"
    with pytest.raises(ResourcesError, match=message):
        RayBackend(trainer, demanding, None, log_dir=tmp_path).run(make_sweep(name="more").broker(), no_tick)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, make_sweep: MakeSweep) -> None:
    backend = RayBackend(ScriptedTrainer(climbing), Resources(address="127.0.0.1:1"), None, log_dir=tmp_path)
    with pytest.raises(ResourcesError, match=r"resources.address: cannot connect to the cluster at 127.0.0.1:1"):
        backend.run(make_sweep().broker(), no_tick)


def test_a_ray_of_its_own_is_started_on_the_slots_and_stopped(
    tmp_path: Path, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    sweep = make_sweep(trials=2, pruner={"type": "none"})
    broker = sweep.broker()
    slots = Slots(devices=(2,), gpus_per_trial=1.0, cpus_per_trial=1, n_slots=1)
    RayBackend(ScriptedTrainer(climbing), Resources(), slots, log_dir=tmp_path).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert {event.facts["cuda_visible_devices"] for event in sweep.heard(AttemptDescribed)} == {"2"}
    assert not ray.is_initialized()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert not {"PYTHONPATH", "CUDA_DEVICE_ORDER", "TUNE_MAX_PENDING_TRIALS_PG"} & set(os.environ)


def test_a_ray_that_is_starting_is_stopped_when_what_it_is_for_comes_to_nothing() -> None:
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), LocalRay(Slots((), 0.0, cpus_per_trial=2, n_slots=1)):
        _ = 1 / 0
    assert not ray.is_initialized()
    assert {key: os.environ.get(key) for key in before} == before


def test_sigterm_stays_with_whoever_had_it_before_ray_connected() -> None:
    """Ray's own handler shows a trace, and sets an alarm that aborts this process while its trials still pause."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with LocalRay(Slots((), 0.0, cpus_per_trial=1, n_slots=1)) as local:
            local.wait()
            reclaim_sigterm()
            os.kill(os.getpid(), signal.SIGTERM)
            alarm_s, _ = signal.getitimer(signal.ITIMER_REAL)
            assert not 0 < alarm_s < 10  # pytest's own is longer
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_workers_of_a_ray_begun_early_have_imported_before_their_first_trial(
    tmp_path: Path, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep = make_sweep(trials=1, pruner={"type": "none"})
    broker = sweep.broker()
    slots = Slots((), 0.0, cpus_per_trial=2, n_slots=1)
    with LocalRay(slots, heavy=["colorsys"]) as local:
        RayBackend(Imported("colorsys"), Resources(), slots, log_dir=tmp_path, local=local).run(broker, no_tick)
        assert ray.is_initialized(), "left to whoever started it"
    assert not ray.is_initialized()
    assert_whole(sweep, broker)
    facts = {key: value for event in sweep.heard(AttemptDescribed) for key, value in event.facts.items()}
    assert facts["imported"] is True
    assert facts["threads"] == "2"


class Imported:
    """A trainer that says whether a module was there before it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __call__(self) -> Imported:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        threads = os.environ.get("OMP_NUM_THREADS")
        reporter.describe({"imported": self._module in sys.modules, "threads": threads})
        reporter.report(Report(GRID.longest, {"accuracy": 0.5}, GRID.longest, final=True))
        return AttemptResult(Ending.DONE)
