"""The broker: the one object that asks and tells Optuna and answers the backend's questions.

Passive: it has no clock, no thread and no file of its own. Every change is handed to the listener before it is acted
on, so that a broker rebuilt from what the listener stored goes on where this one left off. Only a `Drawing` may be run
in another thread.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import Trial
from optuna.trial import TrialState as OptunaState

from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Configuration,
    Decision,
    Ending,
    Event,
    Grid,
    Listener,
    Report,
    Reported,
    Source,
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialRecord,
    TrialSpec,
    TrialState,
    TrialSuggested,
)
from finesweep.search.agenda import Agenda
from finesweep.search.asking import Asking, Drawing, Drawn
from finesweep.search.failures import FailureStreak, Retries
from finesweep.search.judge import BY_HAND, Judge, Values, step_of_value
from finesweep.search.known import KnownConfigurations
from finesweep.search.pruners import make_pruner
from finesweep.search.records import missing_metric
from finesweep.search.samplers import make_chance, make_sampler, sampler_seed
from finesweep.spec.front import values_of
from finesweep.spec.study import StudySpec

SEEDS = "finesweep:sampler_seeds"  # number of trials there were -> the sampler's seed from then on


class NoTrial(StrEnum):
    """Why there is no trial to run."""

    WAIT = "wait"  # ask again: something that is running may yet have to be run again
    EXHAUSTED = "exhausted"  # for good: the budget or the space is used up, or the sweep was halted
    DRAWING = "drawing"  # ask again soon; said by those who draw in a thread, never by the broker


@dataclass(slots=True)
class _Live:
    """A trial that has no outcome yet."""

    number: int
    trial: Trial
    configuration: Configuration
    attempts: int = 0
    spoiled: int = 0  # attempts that came to nothing and used up a retry
    decisions: dict[int, Decision] = field(default_factory=dict)  # by step
    values: dict[int, Values] = field(default_factory=dict)  # of the objectives, by step


class TrialBroker:
    """Suggest trials, judge their reports, record how they end."""

    def __init__(
        self,
        study: StudySpec,
        *,
        name: str,
        grid: Grid,
        n_trials: int,
        retries: int,
        retry_on: Collection[Ending] = (Ending.LOST,),
        stop_after_failures: int = 0,
        listener: Listener,
        starting: Sequence[tuple[Source, Configuration]] = (),
        agenda: Agenda | None = None,
        fixed: Configuration | None = None,
        history: SweepHistory | None = None,
        sampler: BaseSampler | None = None,
    ) -> None:
        """Begin a sweep, or go on with the one in `history`.

        Args:
            n_trials: trained trials in total; a configuration met before takes over the earlier result and is free.
            retries: how often a trial is begun again after an attempt that came to nothing.
            retry_on: the endings that are meant by that: LOST, STALLED, FAILED or some of these.
            stop_after_failures: halt once so many trials in a row have failed for the same reason; 0: never.
            starting: configurations, perhaps partial, to be tried before the sampler is asked.
            agenda: says what is tried, in place of `starting` and the sampler.
            fixed: the sweep's settings, on which conditions and branches may depend.
            sampler: instead of the one that the study names.
        """
        history = history or SweepHistory()
        self._spec, self._agenda = study, agenda
        self._n_trials = n_trials
        self._retries = Retries(retries, after=retry_on)
        self._failures = FailureStreak(stop_after_failures)
        self._emit_to = listener
        fixed = dict(fixed or {})
        self._storage = InMemoryStorage()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study: Study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=[objective.direction for objective in study.objectives],
            sampler=sampler or make_sampler(study, n_trials_before=len(history.trials)),
            pruner=make_pruner(study.pruner, grid),
        )
        self._judge = Judge(self.study, study)
        self._study_id = self._storage.get_study_id_from_name(name)
        self._live: dict[int, _Live] = {}
        self._queue: deque[int] = deque()  # to be run before the sampler is asked again
        self._in_flight: dict[int, int] = {}  # trial -> its attempt, handed to the backend and not given back
        self._ended: dict[int, int] = {}  # trial that ended while in flight -> its attempts that were begun
        self._twins: defaultdict[int, list[int]] = defaultdict(list)  # trial -> those that wait for its result
        self._known = KnownConfigurations(study.parameters, fixed=fixed)
        self._asking = Asking(
            self.study,
            study,
            self._known,
            starting=starting,
            agenda=agenda,
            fixed=fixed,
            chance=make_chance(study, n_trials_before=len(history.trials)),
        )
        self._n_charged = 0  # trials that cost work, those being drawn among them; reused ones do not
        self._halt_reason: str | None = None
        self._pausing = False
        self._collected: list[Event] | None = None  # within together()
        self._before_ending: Callable[[], None] = _nothing
        self._restore(history)

    # --- what a backend asks ------------------------------------------------------------------------------------

    def suggest(self) -> TrialSpec | NoTrial:
        """Give the next attempt to run, drawing its configuration here and now."""
        while isinstance(found := self.look(), Drawing):
            trial = self.register(found())
            if trial is not None:
                return trial
        return found

    def look(self) -> TrialSpec | NoTrial | Drawing:
        """Give the next attempt to run, or a drawing to be run and registered before this is asked again."""
        if self._halt_reason is None:
            if self._queue:
                return self._hand_out(self._queue.popleft())
            may_ask = self._n_charged < self._n_trials and self.used_up is None
            if may_ask and (drawing := self._asking.prepare()) is not None:
                self._n_charged += 1
                return drawing
        return NoTrial.WAIT if self._in_flight else NoTrial.EXHAUSTED

    def register(self, drawn: Drawn) -> TrialSpec | None:
        """Take up a trial that was drawn, and hand it out; None if its result is known, or will be."""
        live = _Live(drawn.trial.number, drawn.trial, drawn.configuration)
        self._live[live.number] = live
        twin_of = self._known.propose(live.configuration, live.number)
        self._emit(
            TrialSuggested(
                number=live.number,
                configuration=live.configuration,
                parameters=live.trial.params,
                distributions={name: distribution_to_json(d) for name, d in live.trial.distributions.items()},
                source=drawn.source,
                attributes=self._attributes(live.number),
                study_attributes=self._study_attributes(),
                twin_of=twin_of,
            )
        )
        if twin_of is None:
            return self._hand_out(live.number)
        self._n_charged -= 1
        self._wait_for(live, twin_of)
        return None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hand what happens within to the listener at once, at the exit: nothing may be answered before.

        What is raised within leaves the events untold, as the death of this process would.
        """
        assert self._collected is None, "not within itself"
        self._collected = []
        try:
            yield
            events = tuple(self._collected)
        finally:
            self._collected = None
        if events:
            self._emit_to(events)

    def before_endings(self, settle: Callable[[], None]) -> None:
        """Have `settle` called before a trial ends in answer to a report or by its worker's word.

        For a sweep that is to repeat exactly: what is being drawn is drawn to its end, as if it had taken no time.
        """
        self._before_ending = settle

    def begin(self, number: int) -> None:
        """Note that a worker has begun the attempt that was handed out. Later calls change nothing."""
        live = self._live.get(number)
        if live is None or live.attempts == self._in_flight[number]:
            return
        live.attempts = self._in_flight[number]
        self._emit(AttemptStarted(number, live.attempts))

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        """Keep facts that only the worker knows; of a trial that was stopped, too, until its worker has cleaned up."""
        live = self._live.get(number)
        if live is not None:
            self.begin(number)
            self._emit(AttemptDescribed(number, live.attempts, dict(facts)))
        elif (attempt := self._ended.get(number)) is not None and attempt == self._in_flight.get(number):
            self._emit(AttemptDescribed(number, attempt, dict(facts)))

    def report(self, number: int, report: Report) -> Decision:
        """Judge a report. The same step reported again gets the same answer and changes nothing."""
        live = self._live.get(number)
        if live is None:
            return Decision.STOP
        self.begin(number)
        known = live.decisions.get(report.step)
        if known is not None:
            return self._or_pause(known, report)
        return self._decide(live, report)

    def poll(self, number: int) -> Decision:
        """Answer a worker that asks between reports."""
        if number not in self._live:
            return Decision.STOP
        return Decision.PAUSE if self._pausing else Decision.CONTINUE

    def finish(self, number: int, result: AttemptResult) -> None:
        """Take back an attempt; give the trial its outcome, or another attempt."""
        self._before_ending()
        self.begin(number)
        ended = AttemptEnded(number, self._in_flight.pop(number), result)
        live = self._live.get(number)
        if live is None:  # its outcome was decided when it was stopped; its worker has now cleaned up
            if ended.attempt == self._ended.pop(number):
                self._emit(ended)
            return
        match result.ending:
            case Ending.DONE:
                self._complete(live, ended)
            case Ending.FAILED:
                self._spoil(live, result.reason or "the trainer failed", ended)
            case Ending.STOPPED:
                self._fail(live, "the trainer ended as stopped without being told to stop", ended)
            case Ending.LOST:
                self._spoil(live, result.reason or "worker lost", ended)
            case Ending.STALLED:
                self._spoil(live, result.reason or "stalled", ended)
            case Ending.BLOCKED:
                self._emit(ended, TrialInterrupted(number))
                self._queue.appendleft(number)
                self.halt(result.reason or "a worker could not go on", pause=True)
            case Ending.ABANDONED:
                raise ValueError(f"attempt {ended.attempt} of trial {number} was not abandoned: its driver is here")
            case Ending.PAUSED if not self._pausing:  # it would be begun again, and pause again, for ever
                self._fail(live, "the trainer ended as paused without being told to pause", ended)
            case Ending.PAUSED:
                self._emit(ended, TrialInterrupted(number))
                self._queue.append(number)

    def give_back(self, number: int) -> None:
        """Take back an attempt that no worker has begun; it is the next to be handed out."""
        del self._in_flight[number]
        self._ended.pop(number, None)
        if number in self._live:
            self._queue.appendleft(number)

    # --- what the composition root asks -------------------------------------------------------------------------

    @property
    def halted(self) -> str | None:
        """The reason given to `halt`, after which no attempt is handed out any more."""
        return self._halt_reason

    @property
    def used_up(self) -> str | None:
        """Why there is nothing new to try although the budget would allow it; what has begun is trained to its end."""
        return self._known.used_up

    @property
    def n_unfinished(self) -> int:
        """Count the trials without an outcome."""
        return len(self._live)

    @property
    def all_failed(self) -> bool:
        """Tell whether there are trials, and every one of them has failed."""
        states = {trial.state for trial in self.study.get_trials(deepcopy=False)}
        return states == {OptunaState.FAIL}

    @property
    def can_grow(self) -> bool:
        """Tell whether a larger total of trials would be used; an agenda knows its own end."""
        return self._agenda is None

    @property
    def n_left(self) -> int:
        """Count the trials to run that are not handed out: those that wait to go on, and those within the budget."""
        if self._halt_reason is not None:
            return 0
        n_new = self._asking.at_most(max(0, self._n_trials - self._n_charged)) if self.used_up is None else 0
        return len(self._queue) + n_new

    def halt(self, reason: str, *, pause: bool) -> None:
        """Suggest no more trials; with `pause`, have the running ones write a checkpoint and give back their slots."""
        self._halt_reason = self._halt_reason or reason
        self._pausing = self._pausing or pause

    def extend(self, n_trials: int) -> None:
        """Set the total of trained trials."""
        self._n_trials = n_trials

    def stop(self, number: int) -> bool:
        """End a trial by hand, PRUNED. Tell whether it was there to be ended."""
        live = self._live.get(number)
        if live is None:
            return False
        self._end(live, TrialState.PRUNED, BY_HAND)
        if number in self._queue:
            self._queue.remove(number)
        return True

    # --- handing out --------------------------------------------------------------------------------------------

    def _wait_for(self, live: _Live, twin: int) -> None:
        if twin in self._live:
            self._twins[twin].append(live.number)
        else:
            self._reuse(live, twin)

    def _hand_out(self, number: int) -> TrialSpec:
        live = self._live[number]
        self._in_flight[number] = live.attempts + 1
        return TrialSpec(number, live.attempts + 1, live.configuration, n_retries=live.spoiled)

    # --- judging ------------------------------------------------------------------------------------------------

    def _decide(self, live: _Live, report: Report) -> Decision:
        missing = missing_metric(report, self._spec.objectives)
        if missing is not None:
            self._before_ending()
            known = ", ".join(sorted(report.metrics)) or "none"
            reason = f'objective.metric "{missing}" is not among the reported metrics ({known})'
            self._fail(live, reason, self._reported(live, report, Decision.STOP))
            return Decision.STOP
        stop = self._judge.judge(live.number, report)
        if stop is not None:
            self._before_ending()
            self._end(live, TrialState.PRUNED, stop, self._reported(live, report, Decision.STOP))
            return Decision.STOP
        live.values[report.step] = values_of(report, self._spec.objectives)
        live.decisions[report.step] = Decision.CONTINUE
        self._emit(self._reported(live, report, Decision.CONTINUE))
        return self._or_pause(Decision.CONTINUE, report)

    def _or_pause(self, decision: Decision, report: Report) -> Decision:
        return Decision.PAUSE if self._pausing and decision is Decision.CONTINUE and not report.final else decision

    def _reported(self, live: _Live, report: Report, decision: Decision) -> Reported:
        return Reported(live.number, live.attempts, report, decision, self._attributes(live.number))

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _complete(self, live: _Live, ended: AttemptEnded) -> None:
        step = step_of_value(live.values, self._spec.objective)
        if step is None:
            self._fail(live, f'the trainer returned without reporting "{self._spec.objective.metric}"', ended)
            return
        self._end(live, TrialState.COMPLETE, ended.result.reason, ended, values=live.values[step], value_step=step)

    def _fail(self, live: _Live, reason: str, *before: Event) -> None:
        self._end(live, TrialState.FAILED, reason, *before)

    def _spoil(self, live: _Live, reason: str, ended: AttemptEnded) -> None:
        """Begin a trial again whose attempt came to nothing, or fail it."""
        live.spoiled += 1
        if self._retries.allow(ended.result.ending, live.spoiled):
            self._emit(ended, TrialInterrupted(live.number))
            self._queue.appendleft(live.number)
        else:
            self._fail(live, self._retries.explain(reason, live.spoiled), ended)

    def _reuse(self, live: _Live, origin: int) -> None:
        """End a trial with the result of an earlier one of the same configuration."""
        earlier = self._storage.get_trial(self._trial_id(origin))
        self._judge.take_over(live.number, origin)
        self._end(
            live,
            next(state for state, theirs in _OPTUNA_STATES.items() if theirs is earlier.state),
            earlier.user_attrs.get("reason"),
            values=tuple(earlier.values) if earlier.state is OptunaState.COMPLETE else None,
            value_step=earlier.user_attrs.get("value_step"),
            reused_from=origin,
        )

    def _end(
        self,
        live: _Live,
        state: TrialState,
        reason: str | None,
        *before: Event,
        values: Values | None = None,
        value_step: int | None = None,
        reused_from: int | None = None,
    ) -> None:
        for key, item in {"reason": reason, "value_step": value_step, "reused_from": reused_from}.items():
            if item is not None:
                live.trial.set_user_attr(key, item)
        self._judge.end(live.number, _OPTUNA_STATES[state], values)
        self._asking.note_ended(live.configuration, values[0] if values else None)
        del self._live[live.number]
        if live.number in self._in_flight:
            self._ended[live.number] = live.attempts
        self._emit(
            *before,
            TrialFinished(
                number=live.number,
                state=state,
                reason=reason,
                value=values[0] if values else None,
                other_values=values[1:] if values else (),
                value_step=value_step,
                reused_from=reused_from,
                attributes=self._attributes(live.number),
                study_attributes=self._study_attributes(),
            ),
        )
        if reused_from is None:
            self._note_outcome(state, reason or "")
        self._settle_twins(live, failed=state is TrialState.FAILED)

    def _note_outcome(self, state: TrialState, reason: str) -> None:
        if state is not TrialState.FAILED:
            self._failures.end()
        elif (enough := self._failures.add(reason)) is not None:
            self.halt(enough, pause=False)

    def _settle_twins(self, origin: _Live, *, failed: bool) -> None:
        twins = [self._live[number] for number in self._twins.pop(origin.number, []) if number in self._live]
        if failed:
            self._known.forget(origin.configuration)
        if failed and twins and self._n_charged < self._n_trials:
            # A failure is no result: the first of those that waited is trained, the others wait for that one.
            first, *twins = twins
            self._train_after_all(first)
            self._twins[first.number].extend(twin.number for twin in twins)
            return
        for twin in twins:
            self._reuse(twin, origin.number)

    def _train_after_all(self, twin: _Live) -> None:
        self._known.keep(twin.configuration, twin.number)
        self._n_charged += 1
        self._queue.append(twin.number)

    # --- going on after a restart -------------------------------------------------------------------------------

    def _restore(self, history: SweepHistory) -> None:
        for key, value in history.study_attributes.items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        self._note_seed(history)
        reports = {record.number: record.reports for record in history.trials}
        waiting = [
            record
            for record in history.trials
            if record.twin_of is not None and not record.state.is_final and not record.attempts
        ]
        for record in history.trials:
            origin = record.number if record.reused_from is None else record.reused_from
            self._judge.restore(record, reports[origin])
            self._asking.note_given(record.source, record.configuration)
            if record.state.is_final:
                self._asking.note_ended(record.configuration, record.value)
            else:
                self._live[record.number] = self._revived(record)
            if record in waiting or record.reused_from is not None:
                continue
            self._n_charged += 1
            if record.state is not TrialState.FAILED:
                self._known.keep(record.configuration, record.number)
            if not record.state.is_final:
                self._queue.append(record.number)
        for record in waiting:
            self._rejoin(record)
        repeats = takewhile(lambda record: record.reused_from is not None, reversed(history.trials))
        self._known.go_on(n_repeats=len(list(repeats)), may_propose=self._n_charged < self._n_trials)

    def _note_seed(self, history: SweepHistory) -> None:
        """Keep with the study which seed the sampler has from which trial on."""
        n_trials = len(history.trials)
        seeds = dict(history.study_attributes.get(SEEDS, {}))
        seeds[str(n_trials)] = sampler_seed(self._spec.sampler.seed, n_trials)
        self._storage.set_study_system_attr(self._study_id, SEEDS, seeds)

    def _revived(self, record: TrialRecord) -> _Live:
        return _Live(
            number=record.number,
            trial=Trial(self.study, self._trial_id(record.number)),
            configuration=record.configuration,
            attempts=record.attempts,
            spoiled=record.n_retries,
            decisions={report.step: Decision.CONTINUE for report in record.reports},
            values={report.step: values_of(report, self._spec.objectives) for report in record.reports},
        )

    def _rejoin(self, record: TrialRecord) -> None:
        live = self._live[record.number]
        earlier = self._known.find(record.configuration)
        if earlier is not None:
            self._wait_for(live, earlier)
        elif self._n_charged < self._n_trials:  # the one it waited for has failed
            self._train_after_all(live)
        else:
            assert record.twin_of is not None, "only twins rejoin"
            self._reuse(live, record.twin_of)

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def _emit(self, *events: Event) -> None:
        if self._collected is None:
            self._emit_to(events)
        else:
            self._collected.extend(events)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _attributes(self, number: int) -> dict[str, Any]:
        return dict(self._storage.get_trial_system_attrs(self._trial_id(number)))

    def _study_attributes(self) -> dict[str, Any]:
        return dict(self._storage.get_study_system_attrs(self._study_id))


def _nothing() -> None:
    """What is to be done before an ending where trials end as they come."""


_OPTUNA_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
