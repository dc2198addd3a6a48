"""The composition root: run, resume, extend, stop and delete sweeps. Time, folders and the environment enter here."""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from finesweep.driver import Driver, SweepEnd, View
from finesweep.errors import (
    DataError,
    DriveError,
    FinesweepError,
    RemoteError,
    ResourcesError,
    ResultsError,
    ServerAwayError,
    SweepHeldError,
    SweepNameError,
)
from finesweep.events import Ending, Grid, Listener, TrialState
from finesweep.layout import is_ours
from finesweep.provenance import gather_provenance
from finesweep.remote import require_client
from finesweep.results.frames import is_older, open_results
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.url import artifacts_dir, redacted, resolve_url
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.retention import Retention
from finesweep.scheduling.backend import Backend
from finesweep.scheduling.slots import Slots, device_environment, find_gpus, n_cores, plan_slots
from finesweep.scheduling.stacking import Stacking
from finesweep.search.agenda import Agenda
from finesweep.search.broker import TrialBroker
from finesweep.search.mirror import delete_study, holds_study
from finesweep.spec.grid import plan_grid
from finesweep.spec.objective_rules import needs_time
from finesweep.spec.space import fixed_settings, starting_configurations
from finesweep.spec.stacking import stacking_key
from finesweep.spec.sweep import FunctionSweep, RemoteSweep, SweepSpec, TransformersSweep
from finesweep.trainer import TrainerFactory
from finesweep.verification.plan import plan_of
from finesweep.verification.race import Race
from finesweep.views.live import PlainView
from finesweep.views.problems import TrackerProblems

if TYPE_CHECKING:
    from finesweep.scheduling.ray_start import LocalRay

BackendName = Literal["ray", "inline"]
CANCELLING_PATIENCE_MINUTES = 0.5  # with a server, where nothing but its jobs is left of a sweep
REMOTE_SWEEP = "remote_sweep"  # of a sweep's provenance: what its jobs are found by on a fine-tuning server


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sweep's results and files are."""

    url: str
    artifact_dir: Path


def place_of(spec: SweepSpec, *, results: str | None) -> Place:
    """Decide where results go: as asked, else as the sweep says, else FINESWEEP_RESULTS, else the current folder."""
    url = resolve_url(results or spec.results or os.environ.get("FINESWEEP_RESULTS"), folder=Path.cwd())
    folder = Path(spec.artifacts.folder) if spec.artifacts.folder else artifacts_dir(url, folder=Path.cwd())
    return Place(url, folder / spec.name)


def cache_dir() -> Path:
    """Tell where tokenised data and converted models are kept, for all sweeps of a user."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "finesweep"
    return Path(os.environ.get("FINESWEEP_CACHE", default))


def run(
    spec: SweepSpec,
    *,
    view: View | None = None,
    results: str | None = None,
    backend: BackendName = "ray",
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> SweepEnd:
    """Begin a sweep and drive it to its end.

    Args:
        view: who watches; None: lines on stderr.
        results: path or URL of the database; None: the sweep's own, FINESWEEP_RESULTS, or finesweep.db here.
        file: the sweep file, and `overrides` what was set on top of it, for the record.

    Raises:
        SweepNameError: the database already holds a sweep of this name.
        DriveError: it was begun and cannot go on now, as when the disk is full; mended, it is to be resumed.
        DataError, ModelError, ResourcesError, ResultsError, SpecError.
    """
    place = place_of(spec, results=results)
    return begin(spec, place, view=view or lines(), backend=backend, file=file, overrides=overrides)


def begin(
    spec: SweepSpec,
    place: Place,
    *,
    view: View,
    backend: BackendName,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    like: Mapping[str, Any] | None = None,
    grid: Grid | None = None,
    about: Mapping[str, Any] | None = None,
) -> SweepEnd:
    """Store a sweep at its place and drive it to its end.

    Args:
        like: provenance of a sweep whose data and model this one must have.
        grid: None: planned anew.
        about: is stored with the provenance; what it says of a verification is carried out.

    Raises what `run` raises.
    """
    slots = slots_here(spec, view)
    make_folder(place.artifact_dir)
    with open_writer(place.url, say=view.say) as writer, ExitStack() as early:
        _refuse_known(writer, spec)
        _refuse_used(place.artifact_dir)
        local = early.enter_context(_start_ray(spec, slots, backend))
        facts = _prepare(spec, view)
        if like is not None:
            _refuse_changed(facts, like, view)
        elif isinstance(spec, RemoteSweep):
            _say_cost(spec, facts, view)
        grid = grid or plan_grid(spec, n_train_rows=facts.get("n_train_rows", 0))
        provenance = gather_provenance(
            devices=asdict(slots) if slots else {"address": spec.resources.address},
            data={**facts, **_identity(spec), "artifact_dir": str(place.artifact_dir), **(about or {})},
            file=file,
            overrides=overrides,
        )
        writer.create_sweep(spec, grid=grid, provenance=provenance)
        _settle_budget(spec, place.artifact_dir)
        make_backend = partial(_backend, backend, spec, place, grid, slots, provenance=provenance, local=local)
        agenda = _agenda(spec, provenance)
        end = drive_stored(spec, place, grid, make_backend, writer=writer, view=view, agenda=agenda)
    _cancel_what_is_left(end, spec, place, provenance, view)
    return end


def resume(
    name: str,
    *,
    view: View | None = None,
    results: str | None = None,
    backend: BackendName = "ray",
    take_over: bool = False,
) -> SweepEnd:
    """Go on with a sweep after Ctrl-C, a crash or a reboot: interrupted trials first, under their own numbers.

    Args:
        take_over: from a holder that seems alive but is known to be gone; if it is not, it stores nothing more.

    Raises:
        SweepHeldError: a live process drives it.
        SweepNameError: there is no such sweep.
        DriveError: it cannot go on now.
    """
    view = view or lines()
    url = existing(url_of(results), say=view.say)
    known = open_results(url)
    spec = known.spec(name)
    provenance = known.provenance(name)
    place = Place(url, known.artifact_dir(name))
    slots = slots_here(spec, view)
    make_folder(place.artifact_dir)
    with open_writer(url) as writer, ExitStack() as early:
        if not take_over:
            writer.refuse_if_held(name)  # before anything is started for it
        is_over = writer.standing(name).state is SweepState.FINISHED  # then there is nothing to start Ray for
        local = None if is_over else early.enter_context(_start_ray(spec, slots, backend))
        _refuse_changed(_prepare(spec, view), provenance, view)
        _settle_budget(spec, place.artifact_dir)
        if isinstance(spec, RemoteSweep):
            _tidy_jobs(spec, place.artifact_dir, provenance, known.trials(name), view)
        grid = writer.grid(name)
        make_backend = partial(_backend, backend, spec, place, grid, slots, provenance=provenance, local=local)
        end = drive_stored(
            spec,
            place,
            grid,
            make_backend,
            writer=writer,
            view=view,
            take_over=take_over,
            agenda=_agenda(spec, provenance),
        )
    _cancel_what_is_left(end, spec, place, provenance, view)
    return end


def _say_cost(spec: RemoteSweep, facts: Mapping[str, Any], view: View) -> None:
    from finesweep.remote.forecast import most_cost

    for line in most_cost(spec, n_train_bytes=facts["n_train_bytes"]):
        view.say(line)


def _identity(spec: SweepSpec) -> dict[str, str]:
    """Draw what a sweep's jobs are found by on a fine-tuning server, whatever becomes of its files."""
    return {REMOTE_SWEEP: uuid.uuid4().hex} if isinstance(spec, RemoteSweep) else {}


def _settle_budget(spec: SweepSpec, artifact_dir: Path) -> None:
    if isinstance(spec, RemoteSweep):
        from finesweep.remote.budget import allow

        allow(spec, artifact_dir)


def _tidy_jobs(
    spec: RemoteSweep, artifact_dir: Path, provenance: Mapping[str, Any], trials: pd.DataFrame, view: View
) -> None:
    """Cancel jobs of a fine-tuning server that no trial waits for: their driver died before it could."""
    from finesweep.remote.tidy import tidy

    wanted, most = _unfinished(trials), int(provenance["n_train_bytes"])
    for job in tidy(spec, artifact_dir, uid=provenance[REMOTE_SWEEP], wanted=wanted, most_per_epoch=most):
        view.say(f"job {job} is cancelled: no trial waits for it.")


def _unfinished(trials: pd.DataFrame) -> list[int]:
    """Number the trials without an outcome."""
    is_final = trials["state"].isin([state for state in TrialState if state.is_final])
    return [int(number) for number in trials.loc[~is_final, "number"]]


def _cancel_what_is_left(
    end: SweepEnd, spec: SweepSpec, place: Place, provenance: Mapping[str, Any], view: View
) -> None:
    """Cancel jobs of a sweep that is over and run still: of pruned trials whose server was away, of lost workers."""
    if not isinstance(spec, RemoteSweep) or end.state is SweepState.INTERRUPTED:
        return
    from finesweep.remote.budget import may_run

    if may_run(place.artifact_dir):
        trials = open_results(place.url).trials(spec.name)
        try:
            _tidy_jobs(_impatient(spec), place.artifact_dir, provenance, trials, view)
        except (RemoteError, ServerAwayError) as error:
            view.say(f"{error} Jobs may run there still: finesweep resume {spec.name} cancels them.")


def _impatient(spec: RemoteSweep) -> RemoteSweep:
    remote = spec.remote.model_copy(update={"patience_minutes": CANCELLING_PATIENCE_MINUTES})
    return spec.model_copy(update={"remote": remote})


def _cancel_jobs(
    spec: RemoteSweep, artifact_dir: Path, provenance: Mapping[str, Any], trials: pd.DataFrame, view: View
) -> None:
    """Cancel the jobs of a sweep that is deleted: later nobody knows them. Asks the server only if some may run."""
    from finesweep.remote.budget import may_run

    if may_run(artifact_dir) or _unfinished(trials):
        require_client()
        _tidy_jobs(_impatient(spec), artifact_dir, provenance, trials.iloc[:0], view)


def extend(
    name: str,
    trials: int | None = None,
    *,
    hours: float | None = None,
    tokens: int | None = None,
    money: float | None = None,
    results: str | None = None,
) -> None:
    """Set larger totals of the budget; a sweep that runs takes them up at once, another one when it is resumed.

    Raises ResultsError if one would not grow.
    """
    url = existing(url_of(results))
    known = open_results(url)
    if plan_of(known.provenance(name)) is not None and not (trials is None and hours is None):
        raise SweepNameError(
            f"sweep {name!r} is a verification: it trains what its plan says. For more seeds verify again: "
            "finesweep verify SWEEP --seeds N."
        )
    with open_writer(url) as writer:
        writer.extend(name, trials=trials, hours=hours, tokens=tokens, money=money)
    if isinstance(spec := known.spec(name), RemoteSweep):  # an old database may name no folder of another one
        _settle_budget(spec, known.artifact_dir(name))


def load_trained(folder: Path | str) -> Any:  # Any: a transformers or peft model, neither of which is typed
    """Load the model that a trial kept in a `best-…` folder, whichever method trained it.

    Of a head and blocks only these are kept, and the frozen rest comes from where the sweep's model lies;
    `.save_pretrained(folder)` writes the whole.
    """
    from finesweep.training.best_weights import load_trained

    return load_trained(Path(folder), cache_dir=cache_dir())


def stop(name: str, *, results: str | None = None) -> bool:
    """Ask whoever drives a sweep to stop it cleanly. Tell whether anybody does."""
    url = existing(url_of(results))
    driven = is_driven(name, url=url)
    with open_writer(url) as writer:
        writer.request_stop(name)
    return driven


def delete(name: str, *, leave_jobs: bool = False, results: str | None = None) -> tuple[Path, ...]:
    """Remove a sweep from our tables and Optuna's, and its files. Raises SweepHeldError while it is driven.

    Jobs of a fine-tuning server that may run are cancelled first, unless they are to be left; raises RemoteError or
    ServerAwayError where that fails. Where files are the database says, and others may have written there: so only in a
    folder that is called like the sweep, and there only what finesweep makes. Return what is left.
    """
    url = existing(url_of(results))
    known = open_results(url)
    artifact_dir, spec = known.artifact_dir(name), known.spec(name)
    with open_writer(url) as writer:
        writer.refuse_if_held(name)
        if isinstance(spec, RemoteSweep) and not leave_jobs:
            _cancel_jobs(spec, artifact_dir, known.provenance(name), known.trials(name), lines())
        writer.delete(name)
    delete_study(url, name)
    return _remove_files(artifact_dir, name)


def _remove_files(artifact_dir: Path, name: str) -> tuple[Path, ...]:
    """Remove a sweep's files and, if nothing else is in it, their folder. Return what is left."""
    if not artifact_dir.is_dir():
        return ()
    if artifact_dir.name != name:
        return (artifact_dir,)
    for entry in artifact_dir.iterdir():
        if not is_ours(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()  # of a link the link itself, not what it points at
    with suppress(OSError):  # it is not empty, or a link
        artifact_dir.rmdir()
    return tuple(sorted(artifact_dir.iterdir())) if artifact_dir.is_dir() else ()


def migrate(*, results: str | None = None, say: Callable[[str], None]) -> str:
    """Bring a database that an older finesweep made up to this one, and name it as people may read it.

    Raises:
        SweepHeldError: an older finesweep drives a sweep in it.
        ResultsError: there is no database, or a newer finesweep made it.
    """
    return redacted(existing(url_of(results), say=say))


def is_driven(name: str, *, url: str) -> bool:
    """Tell whether a live process drives the sweep. Raises SweepNameError for an unknown one."""
    return driver_pid(name, url=url) is not None


def driver_pid(name: str, *, url: str) -> int | None:
    """Tell the process that drives the sweep, if it is alive. Raises SweepNameError for an unknown sweep."""
    sweeps = open_results(url).sweeps()
    found = sweeps[sweeps["sweep"] == name]
    if found.empty:
        raise SweepNameError(f"sweep {name!r} is not in the database. Known: {', '.join(sweeps['sweep']) or 'none'}.")
    driver = found["driver"].iloc[0]
    return None if pd.isna(driver) else int(driver.split()[-1])


# --- putting a drive together ------------------------------------------------------------------------------------


def drive_stored(
    spec: SweepSpec,
    place: Place,
    grid: Grid,
    make_backend: Callable[[], Backend],
    *,
    writer: ResultsWriter,
    view: View,
    take_over: bool = False,
    holder: Holder | None = None,
    clock: Callable[[], float] = time.monotonic,
    copying: Executor | None = None,
    agenda: Agenda | None = None,
) -> SweepEnd:
    """Drive a sweep that is in the database, from its lease to its end, as this process or as a simulated `holder`.

    With an agenda it says what is tried, in place of starting configurations and the sampler.

    Raises what `resume` raises.
    """
    name = spec.name
    writer.acquire(name, holder or Holder.this_process(), take_over=take_over)
    try:
        history = writer.history(name)
        n_trials = writer.standing(name).budget_trials
        view.begin(spec.study.objectives, n_trials, history)
        retention = Retention(
            spec,
            place.artifact_dir,
            trials=history.trials,
            removed=lambda number: writer.remove_artifacts(name, number),
        )

        def make_broker(listener: Listener) -> TrialBroker:
            return TrialBroker(
                spec.study,
                name=name,
                grid=grid,
                n_trials=n_trials,
                retries=spec.budget.retries,
                retry_on=[Ending(ending) for ending in spec.budget.retry_on],
                stop_after_failures=spec.budget.stop_after_failures,
                listener=listener,
                starting=starting_configurations(spec),
                agenda=agenda,
                fixed=fixed_settings(spec.training, spec.study.parameters),
                history=history,
            )

        driver = Driver(
            spec,
            writer=writer,
            make_broker=make_broker,
            listeners=[retention, TrackerProblems(view.say)],
            view=view,
            clock=clock,
            copying=copying,
        )
        return driver.drive(make_backend())
    except SweepHeldError:
        raise
    except FinesweepError as error:
        raise DriveError(name, error) from error
    finally:
        with suppress(ResultsError):  # what cannot be written now must not hide why
            writer.release(name)


def _backend(
    name: BackendName,
    spec: SweepSpec,
    place: Place,
    grid: Grid,
    slots: Slots | None,
    *,
    provenance: Mapping[str, Any],
    local: LocalRay | None,
) -> Backend:
    if name == "inline" and slots is not None:
        show_one_device(slots)
    share = 1.0 if name == "inline" else spec.resources.gpus_per_trial  # inline, nobody is beside
    factory = _trainer_factory(spec, place, grid, provenance=provenance, memory_share=share)
    stacking = Stacking(spec.resources.stack, stacking_key(spec))
    if name == "inline":
        from finesweep.scheduling.inline import InlineBackend

        return InlineBackend(factory, log_dir=place.artifact_dir, stacking=stacking)
    from finesweep.scheduling.ray_tune import RayBackend  # heavy, and sets Ray up as it is imported

    return RayBackend(
        factory,
        spec.resources,
        slots,
        log_dir=place.artifact_dir,
        stacking=stacking,
        local=local,
        stall_minutes=spec.budget.stall_minutes,
    )


def _start_ray(spec: SweepSpec, slots: Slots | None, backend: BackendName) -> AbstractContextManager[LocalRay | None]:
    """Start Ray on this box beside the preparations, its workers importing what takes them longest."""
    if backend == "inline" or slots is None:
        return nullcontext()
    from finesweep.scheduling.ray_start import LocalRay  # imports ray

    if LocalRay.is_there():
        return nullcontext()
    heavy = ["finesweep.training.transformers_trainer"] if isinstance(spec, TransformersSweep) else []
    return LocalRay(slots, heavy=heavy)


def _trainer_factory(
    spec: SweepSpec, place: Place, grid: Grid, *, provenance: Mapping[str, Any], memory_share: float
) -> TrainerFactory:
    if isinstance(spec, RemoteSweep):
        from finesweep.remote.trainer import RemoteTrainerFactory

        return RemoteTrainerFactory(spec, grid, place.artifact_dir, cache_dir(), provenance[REMOTE_SWEEP])
    if isinstance(spec, FunctionSweep):
        from finesweep.training.function import FunctionTrainerFactory

        return FunctionTrainerFactory(spec, grid, place.artifact_dir)
    assert isinstance(spec, TransformersSweep), "there are two kinds"
    from finesweep.training.transformers_trainer import TransformersTrainerFactory  # heavy

    return TransformersTrainerFactory(
        spec,
        grid,
        place.artifact_dir,
        cache_dir(),
        data_fingerprint=provenance["data_fingerprint"],
        model_fingerprint=provenance["model_fingerprint"],
        judges_test=plan_of(provenance) is not None,
        memory_share=memory_share,
    )


def _agenda(spec: SweepSpec, provenance: Mapping[str, Any]) -> Agenda | None:
    """Give what a verification trains, and in which order."""
    plan = plan_of(provenance)
    return None if plan is None else Race(plan, spec.study.objective)


def slots_here(spec: SweepSpec, view: View) -> Slots | None:
    """Divide this box; None on a cluster, which is divided once it is connected to."""
    if isinstance(spec, RemoteSweep):  # its slots only wait
        most = spec.resources.max_parallel or spec.remote.max_concurrent
        return Slots((), gpus_per_trial=0.0, cpus_per_trial=1, n_slots=min(most, spec.remote.max_concurrent))
    if spec.resources.address is not None:
        return None
    slots = plan_slots(
        spec.resources,
        gpus=() if spec.resources.devices == "cpu" else find_gpus(),
        n_cpus=n_cores(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )
    if needs_time(spec.study) and not slots.devices and slots.n_slots > 1:  # devices: auto, and there is none
        raise ResourcesError(
            f"objective train_seconds: there is no GPU here, and {slots.n_slots} trials would share the CPU and slow "
            "each other down. Set resources.max_parallel to 1, or leave this objective out."
        )
    for note in slots.notes:
        view.say(note)
    return slots


def _prepare(spec: SweepSpec, view: View) -> dict[str, Any]:
    """Get ready what trials need; return the facts of it that are kept with the sweep."""
    if isinstance(spec, RemoteSweep):
        return _prepare_remote(spec, view)
    if isinstance(spec, FunctionSweep):
        from finesweep.training.function import function_facts

        return function_facts(spec)
    assert isinstance(spec, TransformersSweep), "there are two kinds"
    from finesweep.training.prepare import prepare

    began_s = time.monotonic()
    prepared = prepare(spec, cache_dir=cache_dir())
    view.say(
        f"{prepared.n_train_rows:,} training and {prepared.n_validation_rows:,} validation rows "
        f"are ready ({time.monotonic() - began_s:.1f} s)."
    )
    for note in prepared.notes:
        view.say(note)
    return {
        "data_fingerprint": prepared.data_fingerprint,
        "model_fingerprint": prepared.model_fingerprint,
        "n_train_rows": prepared.n_train_rows,
        "n_validation_rows": prepared.n_validation_rows,
        "labels": list(prepared.labels),
        "data_notes": list(prepared.notes),
    }


def _prepare_remote(spec: RemoteSweep, view: View) -> dict[str, Any]:
    """Check what jobs will be given, and that there is a key to begin them with."""
    require_client()
    from finesweep.remote.rows import prepare_rows
    from finesweep.remote.server import connect
    from finesweep.remote.trainer import remote_facts

    connect(spec.remote)
    files = prepare_rows(spec, cache_dir=cache_dir())
    view.say(f"{files.train.n_rows:,} training and {files.validation.n_rows:,} validation rows are ready.")
    for note in files.notes:
        view.say(note)
    return dict(remote_facts(files))


def lines() -> View:
    """Give a view that writes lines on stderr."""
    return PlainView(lambda line: print(line, file=sys.stderr))  # noqa: T201  # a notebook's view


def _refuse_changed(facts: Mapping[str, Any], provenance: Mapping[str, Any], view: View) -> None:
    """Raise DataError if data or model are not those that the sweep began with; say so of code, which may be mended."""
    if facts.get("code_fingerprint") != provenance.get("code_fingerprint"):
        view.say("The code of the trainer has changed since the sweep began: earlier trials ran what it was before.")
    for what in ("data", "model"):
        if facts.get(f"{what}_fingerprint") != provenance.get(f"{what}_fingerprint"):
            raise DataError(
                f"the {what} has changed since the sweep began: its trials could not be compared any more. "
                f"Restore the {what}, or run the sweep file again under another --name."
            )


def _refuse_used(artifact_dir: Path) -> None:
    """Raise ResultsError if a new sweep would write among the files of another one, of another database."""
    if any(artifact_dir.glob("trial-*")):
        raise ResultsError(
            f"artifacts.folder: {artifact_dir} holds trials of another sweep, perhaps of another database. "
            "Give this one another --name, or another folder: --set artifacts.folder=FOLDER."
        )


def show_one_device(slots: Slots) -> None:
    """Let this process see one GPU, as a worker would. To be called before torch is imported."""
    if slots.devices:
        os.environ.update(device_environment(slots, only_first=True))


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"artifacts.folder: {path} cannot be made ({error.strerror}). Name a folder that can be written."
        ) from error


def _refuse_known(writer: ResultsWriter, spec: SweepSpec) -> None:
    """Raise SweepNameError if the sweep is in the database, saying what to do about it."""
    results = open_results(writer.url)
    if spec.name not in list(results.sweeps()["sweep"]):
        if holds_study(writer.url, spec.name):
            raise SweepNameError(
                f"Optuna's tables in this database already hold a study named {spec.name!r} that is no sweep of ours. "
                "Give this one another name: --name NAME."
            )
        return
    differing = _differences(results.spec(spec.name).model_dump(mode="json"), spec.model_dump(mode="json"))
    if not differing:
        raise SweepNameError(
            f"sweep {spec.name!r} is already in the database. Go on with it: finesweep resume {spec.name}. "
            f"More trials: finesweep extend {spec.name} --trials N. A new one beside it: --name NAME."
        )
    raise SweepNameError(
        f"another sweep named {spec.name!r} is already in the database. It differs in {', '.join(differing)}. "
        f"Give this one another name: --name NAME."
    )


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """List the key paths at which two specs differ; totals, which can be extended, are no difference."""
    if path in ("budget.trials", "budget.hours", "budget.tokens", "budget.money"):
        return []
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        return [
            found
            for key in keys
            for found in _differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]


def url_of(results: str | None) -> str:
    """Tell which database is meant: as asked, else FINESWEEP_RESULTS, else the one of the current folder."""
    return resolve_url(results or os.environ.get("FINESWEEP_RESULTS"), folder=Path.cwd())


def existing(url: str, *, say: Callable[[str], None] | None = None) -> str:
    """Look first: a database that is not there is an error, not to be created. An older one is migrated."""
    if is_older(url):
        open_writer(url, say=say or lines().say).close()
    return open_results(url).url
