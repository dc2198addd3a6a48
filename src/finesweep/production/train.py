"""Train a model for production from a trial's record, in the very way in which the sweep trained the trial.

In: a plan, a folder, who else trains along. Out: the folder filled with a model, its card and its metrics; or a
training that was interrupted, to be gone on with.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch

from finesweep.errors import FinesweepError
from finesweep.events import Ending, TrialSpec
from finesweep.layout import attempts_of, trial_dir
from finesweep.production import folder as folders
from finesweep.production.card import card_text, license_of
from finesweep.production.folder import CARD, METRICS, Work, metrics_text
from finesweep.production.model_folder import write_model
from finesweep.production.outcome import Measured, hold, like_the_trial, metrics_content
from finesweep.production.plan import Plan
from finesweep.production.processes import Processes, share_batch
from finesweep.production.surroundings import Difference, Here, differences, threads_then
from finesweep.production.watching import Shown, Watch
from finesweep.spec.evaluation_rules import measured_metrics
from finesweep.spec.sweep import TransformersSweep
from finesweep.training.best_weights import load_trained
from finesweep.training.checkpoints import Best, TrialFolder
from finesweep.training.encoding import pad_id_of, row_lengths
from finesweep.training.judge_rows import score_rows
from finesweep.training.memory import forget_trial
from finesweep.training.model_files import resolve_model
from finesweep.training.prepare import Prepared, load_split, prepare
from finesweep.training.recipe import Shared, device_of, on_cpu
from finesweep.training.transformers_trainer import TransformersTrainer, check_devices, feature_cache, load_shared

_NO_ROOM_GIB = 1e-9  # for weights of processes other than the main one: what it writes is enough
_STAND_IN_ROWS = 2  # to be scored where there are none to judge by; nobody is told


@dataclass(frozen=True, slots=True)
class Trained:
    """How a production training ended."""

    folder: Path
    state: str  # done, interrupted, diverged
    metrics: Mapping[str, Any] | None = None  # the content of metrics.json, of one that is done
    said: str | None = None  # why it is not done

    @property
    def is_broken(self) -> bool:
        """Tell whether it does not meet what a verification has promised."""
        interval = None if self.metrics is None else self.metrics["prediction_interval"]
        return interval is not None and bool(interval["is_broken"])


def train(
    plan: Plan,
    folder: Path,
    *,
    cache_dir: Path,
    shown: Shown,
    processes: Processes = Processes(),  # noqa: B008  # frozen
    resume: bool = False,
    force: bool = False,
    command: str | None = None,
) -> Trained:
    """Train to the end, or until interrupted. All processes of a launch call this; one of them writes.

    Raises ExportError for a folder that is not to be written to, DataError, ModelError, ResourcesError.
    """
    began_s = time.monotonic()
    if processes.is_main:
        folders.check_folder(folder, resume=resume, force=force)
        if resume and not force and (before := folders.finished(folder)) is not None and not _is_begun(folder):
            shown.say(f"{folder}: this training is done.")
            return Trained(folder, "done", before)
    for note in plan.notes:
        shown.say(note)
    processes.join(use_cpu=on_cpu(plan.spec))
    if processes.n == 1:
        check_devices(plan.spec)
    set_threads(plan.record.provenance, plan.record.facts)
    prepared = prepare(plan.spec, cache_dir=cache_dir)
    found = _say_differences(plan, prepared, shown)
    spec = _spec_here(plan.spec, processes)
    with ExitStack() as held:
        work = _claim(folder, plan, prepared, processes, resume=resume and not force)
        if processes.is_main:
            held.callback(folders.hold(folder).release)
        if work.goes_on:
            shown.say(f"{folder}: going on with the training that was interrupted.")
        artifact_dir = held.enter_context(_artifact_dir(work, plan.record.trial, processes))
        shared = _shared(plan, spec, prepared, processes, cache_dir=cache_dir)
        watch = Watch(
            spec.study.objectives, shown, processes, stops_early=plan.stop_percent is not None and plan.asked.full_data
        )
        with watch.signals():
            result = TransformersTrainer(spec, plan.grid, artifact_dir, shared).run(
                TrialSpec(plan.record.trial, work.attempt, {}), watch
            )
        if watch.diverged_at is not None:
            if processes.is_main:
                folders.give_up(work)
            said = f"training diverged at step {watch.diverged_at}: its loss is not finite, or has grown beyond bounds"
            return Trained(folder, "diverged", said=said)
        if result.ending is Ending.PAUSED and not watch.has_ended:
            return Trained(folder, "interrupted", said="interrupted; a checkpoint is written")
        processes.wait()  # until the main one has written what is kept
        best = _best(work, plan.record.trial)
        measured = _measure(plan, spec, prepared, shared, watch, best, processes, cache_dir=cache_dir)
        metrics = metrics_content(
            plan,
            prepared,
            measured,
            reports=watch.reports,
            facts=watch.facts,
            found=found,
            n_processes=processes.n,
            seconds=time.monotonic() - began_s,
            command=command,
        )
        processes.wait()  # the others have read the weights
        if processes.is_main:
            _write(work, plan, best, metrics, cache_dir=cache_dir)
        _say_outcome(plan, measured, found, shown)
    return Trained(folder, "done", metrics)


def set_threads(provenance: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Compute with as many threads as the trial did, unless OMP_NUM_THREADS says otherwise: sums depend on it."""
    threads = os.environ.get("OMP_NUM_THREADS") or threads_then(provenance, facts)
    if threads is not None:
        torch.set_num_threads(int(threads))


def here(spec: TransformersSweep, prepared: Prepared) -> Here:
    """Tell what a trial would be trained in, here and now."""
    threads = torch.get_num_threads()
    return Here(prepared.data_fingerprint, prepared.model_fingerprint, device_of(spec), threads)


def _is_begun(folder: Path) -> bool:
    return (folder / folders.WORK).is_dir()


def _spec_here(spec: TransformersSweep, processes: Processes) -> TransformersSweep:
    """Give each process its part of the batch; what the others would write has no room."""
    changes: dict[str, Any] = {"training": share_batch(spec.training, processes)}
    if not processes.is_main:
        changes["artifacts"] = spec.artifacts.model_copy(update={"quota_gib": _NO_ROOM_GIB})
    return spec.model_copy(update=changes)


def _say_differences(plan: Plan, prepared: Prepared, shown: Shown) -> tuple[Difference, ...]:
    """Say first what is not as it was when the trial was trained."""
    record = plan.record
    found = differences(record.provenance, record.facts, here(plan.spec, prepared))
    if found:
        shown.say("Not as it was when the trial was trained:")
    for difference in found:
        shown.say(f"  {difference}")
    labels = record.provenance.get("labels")
    if labels is not None and list(labels) != list(prepared.labels):
        missing, new = (sorted(set(a) - set(b)) for a, b in ((labels, prepared.labels), (prepared.labels, labels)))
        told = [
            f"{what} {', '.join(map(str, names))}" for what, names in (("without", missing), ("with", new)) if names
        ]
        shown.say(f"  labels: {'; '.join(told) or 'in another order'} than in the sweep")
    for note in prepared.notes:
        shown.say(note)
    return found


def _claim(folder: Path, plan: Plan, prepared: Prepared, processes: Processes, *, resume: bool) -> Work:
    """Begin, or find where to go on; the main process first, the others after it."""
    told = {
        "trial": f"{plan.record.sweep}:{plan.record.trial}",
        "training on": plan.trained_on,
        "rows": prepared.folder.name,
        "model": prepared.model_fingerprint,
        "settings": plan.spec.training.model_dump(mode="json"),
        "grid": asdict(plan.grid),
        "objective": plan.spec.study.model_dump(mode="json")["objective"],
    }
    number = plan.record.trial
    if processes.is_main:
        work = folders.claim(folder, number, told, resume=resume)
        processes.wait()
        return work
    processes.wait()
    before = attempts_of(trial_dir(folder / folders.WORK, number)) if resume else {}
    return Work(folder, max(before, default=0) + 1, goes_on=bool(before))


@contextmanager
def _artifact_dir(work: Work, number: int, processes: Processes) -> Iterator[Path]:
    """Tell where this process keeps what it writes: all but the main one in a folder that vanishes.

    Each has checkpoints of its own to go on from, copied before the main one begins.
    """
    if processes.is_main:
        processes.wait()
        yield work.artifact_dir
        return
    with tempfile.TemporaryDirectory(prefix="finesweep-") as mine:
        if (there := trial_dir(work.artifact_dir, number)).is_dir():
            shutil.copytree(there, trial_dir(Path(mine), number))
        processes.wait()
        yield Path(mine)


def _shared(
    plan: Plan, spec: TransformersSweep, prepared: Prepared, processes: Processes, *, cache_dir: Path
) -> Shared:
    """Load what the training needs. Where the validation rows are learnt from, the test rows stand in their place."""
    shared = replace(load_shared(spec, prepared, cache_dir=cache_dir), n_processes=processes.n)
    if not plan.asked.full_data:
        return shared
    rows = datasets.concatenate_datasets([shared.train, shared.validation])
    judged = (
        load_split(prepared, "test") if prepared.n_test_rows else rows.select(range(min(_STAND_IN_ROWS, len(rows))))
    )
    return replace(
        shared,
        train=rows,
        validation=judged,
        n_train_tokens=sum(row_lengths(rows)),
        features=feature_cache(
            spec,
            shared.base_model,
            prepared,
            data_key=f"{prepared.folder.name}-full",
            train=rows,
            validation=judged,
            pad_id=pad_id_of(shared.tokenizer),
            cache_dir=cache_dir,
        ),
    )


def _best(work: Work, number: int) -> Best:
    best = TrialFolder(work.artifact_dir, number, work.attempt).best()
    if best is None:
        raise FinesweepError(
            f"{work.folder}: no weights were kept: no report's value was a number. Look at the metric that the trial "
            "was judged by."
        )
    return best


def _measure(
    plan: Plan,
    spec: TransformersSweep,
    prepared: Prepared,
    shared: Shared,
    watch: Watch,
    best: Best,
    processes: Processes,
    *,
    cache_dir: Path,
) -> Measured:
    """Gather metrics of the weights that were kept, on the rows that they have not learnt from."""
    names = measured_metrics(spec.task, spec.evaluation)
    reported = next((report.metrics for report in watch.reports if report.step == best.step), {})
    of_report = {name: value for name, value in reported.items() if name in names}
    if plan.asked.full_data:
        return Measured(best.step, None, {"test": of_report} if prepared.n_test_rows else {})
    splits: dict[str, Mapping[str, float]] = {"validation": of_report}
    if prepared.n_test_rows:
        processes.wait()
        forget_trial()
        with nullcontext() if processes.is_main else tempfile.TemporaryDirectory() as mine:
            splits["test"] = score_rows(
                load_trained(best.path, cache_dir=cache_dir),
                load_split(prepared, "test"),
                scoring=shared.scoring,
                tokenizer=shared.tokenizer,
                settings=spec.training,
                use_cpu=on_cpu(spec),
                scratch_dir=best.path.parent if mine is None else Path(mine),
            )
    return Measured(best.step, best.value, splits)


def _write(work: Work, plan: Plan, best: Best, metrics: Mapping[str, Any], *, cache_dir: Path) -> None:
    source = resolve_model(plan.spec.model, cache_dir=cache_dir)

    def write(folder: Path) -> None:
        write_model(folder, best.path, plan, step=best.step, value=best.value, cache_dir=cache_dir)
        (folder / CARD).write_text(card_text(plan, metrics, license_name=license_of(source)), encoding="utf-8")
        (folder / METRICS).write_text(metrics_text(metrics), encoding="utf-8")

    folders.fill(work, write)


def _say_outcome(plan: Plan, measured: Measured, found: tuple[Difference, ...], shown: Shown) -> None:
    metric = plan.record.metric
    for split, named in measured.splits.items():
        if metric in named:
            shown.say(f"{metric} {named[metric]:.4f} on the {split} rows.")
    if not measured.splits:
        shown.say("Not judged: the validation rows were learnt from, and there are no test rows.")
    equal = like_the_trial(plan, measured)
    if equal is not None:
        what = "as the trial's" if equal else f"the trial's was {plan.record.value:.4f}"
        shown.say(f"Kept: the weights of step {measured.step}, {what}.")
    held = hold(plan, measured, found)
    if held is not None:
        shown.say(str(held))
