"""What is tried next: configurations to start with, then the sampler's; chance, where the sampler repeats itself. Or
what an agenda says, and nothing else.

A drawing is prepared in the broker's thread and may be run in any other, while trials are reported and end: it touches
nothing but Optuna's study, whose storage locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import Trial

from finesweep.events import Configuration, Source
from finesweep.search.agenda import Agenda
from finesweep.search.known import KnownConfigurations
from finesweep.search.space import grid_values, stored_parameters, suggest_configuration
from finesweep.spec.study import StudySpec


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trial of the study that the broker does not know yet."""

    source: Source
    trial: Trial
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class Drawing:
    """A configuration to be drawn, once. Slow: some samplers take seconds when a study has many trials."""

    spec: StudySpec
    study: Study
    source: Source
    given: Configuration | None  # what the sampler is not asked for
    fixed: Configuration

    def __call__(self) -> Drawn:
        if self.given is not None:
            self.study.enqueue_trial(stored_parameters(self.given, self.spec.parameters, fixed=self.fixed))
        trial = self.study.ask()
        return Drawn(self.source, trial, suggest_configuration(trial, self.spec.parameters, fixed=self.fixed))


class Asking:
    """Prepares drawings, one after another."""

    def __init__(
        self,
        study: Study,
        spec: StudySpec,
        known: KnownConfigurations,
        *,
        starting: Sequence[tuple[Source, Configuration]],
        agenda: Agenda | None,
        fixed: Configuration,
        chance: BaseSampler,
    ) -> None:
        self._study, self._spec, self._known, self._fixed = study, spec, known, fixed
        self._agenda = agenda
        # A study of its own: a sampler that is swapped while another thread draws would be the wrong one there.
        self._by_chance = optuna.load_study(study_name=study.study_name, storage=study._storage, sampler=chance)
        self._starting = _usable(starting, spec)
        self._n_started_given = 0

    def note_given(self, source: Source, configuration: Configuration) -> None:
        """Count a trial of the past."""
        self._n_started_given += source is not Source.SAMPLER
        if self._agenda is not None:
            self._agenda.note_given(configuration)

    def note_ended(self, configuration: Configuration, value: float | None) -> None:
        """Hear how a trial ended: the value of the leading objective; None unless it is COMPLETE."""
        if self._agenda is not None:
            self._agenda.note_ended(configuration, value)

    def at_most(self, n_trials: int) -> int:
        """Tell how many trials there may yet be, of so many that the budget allows."""
        return n_trials if self._agenda is None else min(n_trials, self._agenda.n_left)

    def prepare(self) -> Drawing | None:
        """Say what is to be drawn next; None if there is nothing left to try, or an agenda waits for trials to end."""
        if self._agenda is not None:
            planned = self._agenda.take()
            if planned is None:
                return None
            return Drawing(self._spec, self._study, Source.START_WITH, planned, self._fixed)
        if self._n_started_given < len(self._starting):
            source, given = self._starting[self._n_started_given]
            self._n_started_given += 1
            return Drawing(self._spec, self._study, source, given, self._fixed)
        if not self._known.needs_help:
            return Drawing(self._spec, self._study, Source.SAMPLER, None, self._fixed)
        unseen = self._known.next_unseen()
        if self._known.used_up is not None:
            return None
        return Drawing(self._spec, self._by_chance, Source.SAMPLER, unseen, self._fixed)


def _usable(
    starting: Sequence[tuple[Source, Configuration]], spec: StudySpec
) -> Sequence[tuple[Source, Configuration]]:
    if spec.sampler.type != "grid":
        return list(starting)
    # Optuna's grid sampler cannot fill in what a partial configuration leaves out, and covers them all anyway.
    drawn = grid_values(spec.parameters).keys()
    return [(source, given) for source, given in starting if drawn <= given.keys()]
