"""The neutral record of a trial: all that any training stack needs to train that configuration again.

Made from stored results only; each target turns the record into its own file.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finesweep.errors import ExportError
from finesweep.events import Configuration, TrialState
from finesweep.results.frames import Results, TrialResult
from finesweep.results.jobs import job_facts
from finesweep.results.objectives import values_text
from finesweep.secrets import hide_urls
from finesweep.spec.parameters import BranchedParameter, DerivedParameter, Parameter
from finesweep.spec.settings import trial_settings
from finesweep.spec.sweep import RemoteSweep, SweepSpec
from finesweep.verification.record import verification_of


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """One trial, resolved. `settings` holds the fixed settings and the trial's own; `facts` what they came to."""

    sweep: str
    trial: int
    task: str | None  # None, as model and data: a trainer of the user's own was not told
    trainer: str
    code_dir: str | None  # where modules of the user's own lie
    model: Mapping[str, Any] | None  # name, how it is loaded, fingerprint
    data: Mapping[str, Any] | None  # paths, columns, limits, fingerprint
    settings: Mapping[str, Any]
    n_devices: int  # that the batch of the settings is for: a trial of a sweep has one
    evaluation: Mapping[str, Any]  # metrics of the user's own, and what is generated to be judged
    seed: int
    configuration: Configuration  # what the sweep searched
    objective: Mapping[str, Any] | Sequence[Mapping[str, Any]]  # as the study has it: one, or a list of several
    value: float  # of the leading objective
    value_step: int | None  # the step of the sweep's grid that the value came from
    grid: Mapping[str, Any]  # what its steps count ("examples" or, in percent, "progress"), and where reports fall
    metrics: Mapping[str, float]  # all that were reported at that step
    examples_seen: int
    facts: Mapping[str, Any]  # effective warm-up, device batch, accumulation, device, counts, ...
    artifacts: Mapping[str, str]  # kind -> path below the sweep's artifact folder
    provenance: Mapping[str, Any]  # versions, commit, host, devices, labels, ...
    command: str | None  # trains the trial again; None if the sweep was not run from a file
    verification: Mapping[str, Any] | None = None  # what training it again over fresh seeds found; None: not done
    remote: Mapping[str, Any] | None = None  # the fine-tuning server of a remote trial, and what it made; never a key

    @property
    def metric(self) -> str:
        """The name of the leading objective's metric."""
        leading = self.objective if isinstance(self.objective, Mapping) else self.objective[0]
        return str(leading["metric"])


def export_record(results: Results, sweep: str, number: int | None = None, *, verified: bool = False) -> ExportRecord:
    """Gather a COMPLETE trial: the best if no number is given, or the one that the sweep's verification found best.

    What a verification found is kept with the trial that it is of. Raises ExportError for any other trial, without a
    number where several objectives leave the choice open, and where there is no verification to go by.
    """
    verification = verification_of(results, sweep)
    if verified:
        number = _verified_number(verification, sweep)
    spec, provenance = results.spec(sweep), results.provenance(sweep)
    trial = _complete_trial(results, sweep, number)
    worker = trial if trial.reused_from is None else results.trial(sweep, trial.reused_from)
    settings = trial_settings(spec.training, trial.configuration)
    at_value = next((report.metrics for report in worker.reports if report.step == trial.value_step), {})
    assert trial.value is not None  # it is COMPLETE
    return ExportRecord(
        sweep=sweep,
        trial=trial.number,
        task=spec.task,
        trainer=spec.trainer,
        code_dir=spec.code_dir,
        model=None
        if spec.model is None
        else {**spec.model.model_dump(mode="json"), "fingerprint": provenance.get("model_fingerprint")},
        data=None
        if spec.data is None
        else {**spec.data.model_dump(mode="json"), "fingerprint": provenance.get("data_fingerprint")},
        settings=settings.model_dump(mode="json"),
        n_devices=1,
        evaluation=spec.evaluation.model_dump(mode="json"),
        seed=settings.seed,
        configuration=trial.configuration,
        objective=spec.study.model_dump(mode="json")["objective"],
        value=trial.value,
        value_step=trial.value_step,
        grid=asdict(results.grid(sweep)),
        metrics=at_value,
        examples_seen=worker.examples_seen,
        facts=worker.facts,
        artifacts=worker.artifacts,
        provenance=provenance,
        verification=verification if verification is not None and verification["trial"] == trial.number else None,
        command=_command(spec, trial, provenance.get("file"), provenance.get("overrides", ())),
        remote=_remote(spec, worker) if isinstance(spec, RemoteSweep) else None,
    )


def _remote(spec: RemoteSweep, worker: TrialResult) -> dict[str, Any]:
    """Give the server as the sweep names it, the variable that holds its key by name, and what the job came to."""
    section = spec.remote.model_dump(mode="json")
    return {**section, "base_url": hide_urls(spec.remote.base_url), "made": job_facts(worker.facts)}


def _verified_number(verification: Mapping[str, Any] | None, sweep: str) -> int:
    if verification is None or verification["trial"] is None:
        raise ExportError(
            f"sweep {sweep!r} has no verification that is over and found a trial. Make one: finesweep verify {sweep}"
        )
    return int(verification["trial"])


def _complete_trial(results: Results, sweep: str, number: int | None) -> TrialResult:
    if number is None:
        front = results.front(sweep)
        if not front:
            raise ExportError(f"sweep {sweep!r} has no COMPLETE trial to export yet. Let it run, or resume it.")
        if len(front) > 1:
            listed = "\n".join(f"  {sweep}:{trial.number}  {values_text(trial.values)}" for trial in front)
            raise ExportError(
                f"sweep {sweep!r} has several objectives, and no trial is the best in all of them. Name one of those "
                f"that no other beats, as in {sweep}:{front[0].number}:\n{listed}"
            )
        return front[0]
    trial = results.trial(sweep, number)
    if trial.state is not TrialState.COMPLETE:
        reason = f" ({trial.reason})" if trial.reason else ""
        raise ExportError(
            f"trial {sweep}:{number} is {trial.state}{reason}; only a COMPLETE trial has a result worth repeating. "
            "Leave out the number to export the best one."
        )
    return trial


def _command(spec: SweepSpec, trial: TrialResult, file: str | None, earlier: Sequence[str]) -> str | None:
    """Write the command that runs a sweep of just this trial; `earlier` are the overrides of the sweep's own run."""
    if file is None:
        return None
    parameters = spec.study.parameters
    given = {
        name: value
        for name, value in trial.configuration.items()
        if not _is_derived(parameters.get(name), trial.configuration)
    }
    overrides = {"start_with": json.dumps([given]), "try_defaults": "false", "budget.trials": "1"}
    words = ["finesweep", "run", file, "--name", f"{spec.name}-{trial.number}"]
    words += [word for text in earlier for word in ("--set", text)]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def _is_derived(parameter: Parameter | None, configuration: Configuration) -> bool:
    if isinstance(parameter, BranchedParameter):
        return isinstance(parameter.branches.get(str(configuration.get(parameter.by))), DerivedParameter)
    return isinstance(parameter, DerivedParameter)
