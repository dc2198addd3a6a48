"""What differs between two trials: where they come from, how they were set, what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finesweep.errors import ResultsError
from finesweep.results.frames import Results, TrialResult
from finesweep.results.jobs import job_facts
from finesweep.results.objectives import value_text
from finesweep.spec.settings import trial_settings
from finesweep.spec.sweep import RemoteSweep, SweepSpec
from finesweep.views.tables import Column, Table

Trial = tuple[str, int]  # sweep, number
# Of a sweep's provenance, what trials may differ by; versions are compared one by one.
_SURROUNDINGS = ("host", "platform", "data_fingerprint", "model_fingerprint", "code_fingerprint", "git")


def incumbent_of(results: Results, sweep: str) -> Trial:
    """Name the trial to compare with. Raises ResultsError where there is none."""
    best = results.best(sweep)
    if best is None:
        raise ResultsError(f"sweep {sweep!r} has no COMPLETE trial to compare with. Name a second one.")
    return sweep, best.number


def diff(results: Results, one: Trial, other: Trial) -> Table:
    """Make a table of what differs: a row each, of the kinds `from`, `setting` and `result`.

    Settings are the resolved ones: what the sweep fixes and what the trial's configuration lays over it. Results are
    listed whether or not they differ, among them all metrics at the last step that both have reported. Raises
    ResultsError for a trial that is not there.
    """
    names = [f"{sweep}:{number}" for sweep, number in (one, other)]
    trials = [results.trial(*trial) for trial in (one, other)]
    step = _last_common_step(*trials)
    sides = [_side(results, trial, step) for trial in trials]
    rows = tuple(
        {"kind": kind, "what": what, names[0]: values[0], names[1]: values[1]}
        for kind in ("from", "setting", "result")
        for what, values in _paired(sides[0][kind], sides[1][kind])
        if kind == "result" or values[0] != values[1]
    )
    columns = (Column("kind", "", "text"), Column("what", "", "text"), *(Column(name, name, "text") for name in names))
    return Table(columns, rows)


def _last_common_step(one: TrialResult, other: TrialResult) -> int | None:
    steps = {report.step for report in one.reports} & {report.step for report in other.reports}
    return max(steps, default=None)


def _side(results: Results, trial: TrialResult, step: int | None) -> dict[str, dict[str, Any]]:
    spec, provenance = results.spec(trial.sweep), results.provenance(trial.sweep)
    described = {
        "trainer": spec.trainer,
        "task": spec.task,
        **_flat("model", None if spec.model is None else spec.model.model_dump(mode="json")),
        **_flat("remote", _server(spec)),
        **_flat("data", None if spec.data is None else spec.data.model_dump(mode="json")),
        **{name: provenance.get(name) for name in _SURROUNDINGS},
        **_flat("versions", provenance.get("versions")),
        "source": trial.source.value,
    }
    return {
        "from": described,
        "setting": trial_settings(spec.training, trial.configuration).model_dump(mode="json"),
        "result": _result(trial, step, is_remote=isinstance(spec, RemoteSweep)),
    }


def _server(spec: SweepSpec) -> Mapping[str, Any] | None:
    """Give what of a server may make trials differ; not how it is asked."""
    return spec.remote.model_dump(include={"base_url", "model"}) if isinstance(spec, RemoteSweep) else None


def _result(trial: TrialResult, step: int | None, *, is_remote: bool) -> dict[str, Any]:
    common = next((report.metrics for report in trial.reports if report.step == step), {})
    return {
        "state": trial.state.value,
        "reason": trial.reason,
        **{metric: value_text(value) for metric, value in trial.values.items()},
        "value_step": trial.value_step,
        "examples_seen": trial.examples_seen,
        **{name: value for name, value in job_facts(trial.facts).items() if is_remote},
        **{f"{metric} at step {step:,}": value_text(value) for metric, value in sorted(common.items())},
    }


def _flat(prefix: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in (values or {}).items()}


def _paired(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Give the two values of each key of either, in the order of the first."""
    for key in dict.fromkeys([*one, *other]):
        yield key, (one.get(key), other.get(key))
