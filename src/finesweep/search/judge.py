"""Whether a report ends its trial, and what a trial is worth in the end.

Optuna prunes by one objective: with several, `report` and `should_prune` raise, and a PRUNED trial with intermediate
values breaks TPE's next proposal. The reports of such a sweep live in a shadow of its study: in memory, of the leading
objective alone, its trials under the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import TrialState as OptunaState

from finesweep.events import Report, TrialRecord
from finesweep.search.records import frozen_trial, told_value, told_values
from finesweep.spec.front import values_at
from finesweep.spec.study import Objective, StudySpec, has_diverged

Values = tuple[float, ...]  # of all objectives, the leading one first


# Why a trial is PRUNED.
RUNG = "rung"
DIVERGED = "diverged"  # and at which step
BY_HAND = "by hand"


class Judge:
    """Tells a study what becomes of its trials, and asks the pruner about their reports."""

    def __init__(self, study: Study, spec: StudySpec) -> None:
        self._objectives = spec.objectives
        self._study = study
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([objective.metric for objective in spec.objectives])
        self._shadow = _shadow_of(study, spec.objective) if len(spec.objectives) > 1 else None

    def restore(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        """Give the study its next trial as it was; `reports` are its own, or those it took over."""
        told = told_values(reports, self._objectives)
        value = None if record.value is None else (record.value,)
        if self._shadow is None:
            self._study.add_trial(frozen_trial(record, value, told))
            return
        values = None if record.value_step is None else values_at(record.value_step, reports, self._objectives)
        self._study.add_trial(frozen_trial(record, values, {}))
        self._shadow.add_trial(frozen_trial(record, value, told))

    def judge(self, number: int, report: Report) -> str | None:
        """Note a report. Tell why the trial is to be stopped, if it is."""
        study, trial_id = self._at(number)
        storage = study._storage
        storage.set_trial_intermediate_value(trial_id, report.step, told_value(report, self._objectives))
        if has_diverged(report.metrics, self._objectives):
            return f"{DIVERGED} at step {report.step}"
        if report.final:
            return None
        is_pruned = study.pruner.prune(study, storage.get_trial(trial_id))
        if self._shadow is not None:  # what the pruner keeps with a trial is kept with the study's own
            for key, item in storage.get_trial_system_attrs(trial_id).items():
                self._study._storage.set_trial_system_attr(_trial_id(self._study, number), key, item)
        return RUNG if is_pruned else None

    def take_over(self, number: int, origin: int) -> None:
        """Give a trial the reports of another one, of the same configuration."""
        study, from_id = self._at(origin)
        _, to_id = self._at(number)
        for step, value in study._storage.get_trial(from_id).intermediate_values.items():
            study._storage.set_trial_intermediate_value(to_id, step, value)

    def end(self, number: int, state: OptunaState, values: Values | None) -> None:
        """Give a trial its outcome."""
        self._study.tell(number, values, state=state)
        if self._shadow is not None:
            self._at(number)
            self._shadow.tell(number, values and values[0], state=state)

    def _at(self, number: int) -> tuple[Study, int]:
        """Find where the reports of a trial are: a study, and the trial's id there."""
        if self._shadow is None:
            return self._study, _trial_id(self._study, number)
        while len(self._shadow.get_trials(deepcopy=False)) <= number:
            self._shadow._storage.create_new_trial(self._shadow._study_id)
        return self._shadow, _trial_id(self._shadow, number)


def step_of_value(values: Mapping[int, Values], objective: Objective) -> int | None:
    """Choose the step that a trial is judged by; None if nothing was reported.

    It is the last, or the best of the leading objective, of equals the earliest.
    """
    if objective.value == "last":
        return max(values, default=None)
    return min(values, key=lambda step: objective.rank(step, values[step][0]), default=None)


def _shadow_of(study: Study, objective: Objective) -> Study:
    """Make a shadow of a study, and leave the pruning to it."""
    shadow = optuna.create_study(
        study_name=study.study_name,  # Hyperband deals trials out to its brackets by name and number
        direction=objective.direction,
        sampler=RandomSampler(),
        pruner=study.pruner,
    )
    study.pruner = NopPruner()
    return shadow


def _trial_id(study: Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
