"""Stock Ray Tune with OptunaSearch on SQLite under the same kills, resumed by Tuner.restore as documented.

    python -m killing.peer FOLDER N_TRIALS SEED [restore]      # its driver

In: a kind of kill, a seed. Out: what the study and the work show afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tables import Table

from killing import trainer
from killing.sweep import PATIENCE_S, patience

KINDS = ("driver killed", "worker killed")
NAME = "peer"
PAUSE_S = 0.75  # longer trials than ours: Tune writes a snapshot every ten seconds
COLUMNS = ("restore raised", "lost", "doubled", "wrong", "zombie")


def run_round(kind: str, seed: int) -> dict[str, Any]:
    """Kill once, restore if it was the driver, and look."""
    draw = Random(f"{kind} {seed}")
    n_trials = draw.randint(6, 10)
    folder = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
    driver: subprocess.Popen[bytes] | None = None
    try:
        (folder / "phases").mkdir()
        driver = _start(folder, n_trials, seed)
        _wait_for_snapshot(driver, folder)
        time.sleep(draw.uniform(0.0, 10.0))
        if kind == "driver killed":
            driver.send_signal(signal.SIGKILL)
            driver.wait(PATIENCE_S)
            time.sleep(2.0)  # its workers end
            driver = _start(folder, n_trials, seed, "restore")
        else:
            pids = [int(path.name) for path in (folder / "phases").iterdir() if Path("/proc", path.name).exists()]
            if pids:
                os.kill(draw.choice(pids), signal.SIGKILL)
        code = driver.wait(4 * PATIENCE_S)
        return {"kind": kind, "seed": seed, "n_trials": n_trials, **_look(folder, n_trials, code)}
    finally:
        if driver is not None and driver.poll() is None:  # this round was itself interrupted
            driver.kill()
            driver.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, n_trials: int, seed: int, *more: str) -> subprocess.Popen[bytes]:
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "killing.peer", str(folder), str(n_trials), str(seed), *more],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OMP_NUM_THREADS": "1",
                "RAY_TMPDIR": str(folder),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_CHDIR_TO_TRIAL_DIR": "0",
            },
        )


def _wait_for_snapshot(driver: subprocess.Popen[bytes], folder: Path) -> None:
    with patience("a snapshot of Tune's", every_s=0.05) as turn:
        while not list((folder / NAME).glob("experiment_state-*")) or not list((folder / "phases").iterdir()):
            if driver.poll() is not None:
                raise RuntimeError((folder / "output.txt").read_text()[-3000:])
            turn()


def _look(folder: Path, n_trials: int, code: int) -> dict[str, Any]:
    import optuna

    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder}/optuna.db")
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    stopped = [trial for trial in complete if trial.value != trainer.score(trial.params["rate"], trainer.N_REPORTS)]
    output = (folder / "output.txt").read_text(errors="replace")
    return {
        "restore raised": int(code != 0),
        "lost": max(0, n_trials - sum(trial.state.is_finished() for trial in trials)),
        "doubled": max(0, len(trials) - n_trials) + _begun_anew(folder),
        "wrong": len(stopped),
        "zombie": sum(trial.state.name == "RUNNING" for trial in trials),
        "said": output[-600:] if code != 0 else "",
    }


def _begun_anew(folder: Path) -> int:
    """Count the trials that trained their first unit again after they had written a checkpoint of it."""
    units: defaultdict[str, list[int]] = defaultdict(list)
    for line in (folder / "work.txt").read_text().splitlines():
        rate, unit = line.split()
        units[rate].append(int(unit))
    return sum(done.count(1) > 1 and max(done) > 1 for done in units.values())


def table(lines: Sequence[Mapping[str, Any]], ours: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Lay the peer's rounds beside the ones of finesweep that are struck alike."""
    rows = []
    for kind in KINDS:
        its = [line for line in lines if line["kind"] == kind]
        rows.append(_row(f"Ray Tune + OptunaSearch, {kind}", its, [sum(line[key] for line in its) for key in COLUMNS]))
        found = [[sum(len(line["found"][key]) for line in ours[kind]) for key in COLUMNS[1:]]]
        rows += [_row(f"finesweep, {kind}", ours[kind], [0, *counts]) for counts in found]
    return Table("The same kills", ("arm", "rounds", "trials", *COLUMNS), tuple(rows))


def _row(name: str, its: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> tuple[str, ...]:
    return (name, str(len(its)), str(sum(line["n_trials"] for line in its)), *map(str, counts))


# --- its driver ----------------------------------------------------------------------------------------------------


def train(config: dict[str, Any], folder: str) -> None:
    """Train as finesweep's arm does, with checkpoints as Ray's documentation has them."""
    from ray import tune

    phase = Path(folder, "phases", str(os.getpid()))
    n_units, state = 0, 0.5
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as kept:
            n_units, state = json.loads(Path(kept, trainer.CHECKPOINT).read_text())
    while n_units < trainer.N_REPORTS:
        phase.write_text("training")
        time.sleep(PAUSE_S)
        state = trainer.trained(state, config["rate"])
        n_units += 1
        with Path(folder, "work.txt").open("a") as file:
            file.write(f"{config['rate']!r} {n_units}\n")
        time.sleep(PAUSE_S)
        with tempfile.TemporaryDirectory() as written:
            Path(written, trainer.CHECKPOINT).write_text(json.dumps([n_units, state]))
            tune.report({trainer.MEASURING: state}, checkpoint=tune.Checkpoint.from_directory(written))


def drive(folder: Path, n_trials: int, seed: int, *, restore: bool) -> None:
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    trainable = tune.with_resources(tune.with_parameters(train, folder=str(folder)), {"cpu": 1})
    if restore:
        tuner = tune.Tuner.restore(str(folder / NAME), trainable, resume_unfinished=True, resume_errored=True)
    else:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")
        tuner = tune.Tuner(
            trainable,
            param_space={"rate": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(
                metric=trainer.MEASURING,
                mode="max",
                num_samples=n_trials,
                max_concurrent_trials=2,
                search_alg=OptunaSearch(storage=storage, study_name=NAME, seed=seed),
                scheduler=tune.schedulers.ASHAScheduler(max_t=trainer.N_REPORTS, grace_period=1, reduction_factor=2),
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=3),
                verbose=0,
            ),
        )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), restore="restore" in sys.argv[4:])
