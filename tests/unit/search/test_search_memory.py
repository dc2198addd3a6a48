"""What samplers with a bounded memory see: below the bound all, above it the best and the latest, whatever happened."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from finesweep.search.memory import Bound, BoundedSampler, Memory
from finesweep.search.samplers import TPE_BOUND, make_sampler
from finesweep.spec.front import pareto_front
from finesweep.spec.study import Objective, StudySpec

LEARNT = (TrialState.COMPLETE, TrialState.PRUNED)


def tpe() -> BaseSampler:
    return quiet(lambda: TPESampler(multivariate=True, group=True, seed=3, n_startup_trials=8))


def gp() -> BaseSampler:
    return quiet(lambda: GPSampler(seed=3, n_startup_trials=8, independent_sampler=RandomSampler(seed=3)))


def quiet(make: Callable[[], BaseSampler]) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make()


def suggest(trial: Trial, *, branches: bool) -> float:
    """Draw a configuration with a branch that is rarely taken; give what it is worth."""
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    worth = -abs(rate - 1e-2)
    if not branches:
        return worth - trial.suggest_float("decay", 0, 1)
    method = trial.suggest_categorical("method", ["full", "lora", "head"])
    if method == "lora":
        worth += trial.suggest_int("lora.rank", 1, 64) / 64
    return worth


def search(sampler: BaseSampler, n_trials: int, *, branches: bool = True, n_objectives: int = 1) -> Study:
    """Run a sweep of three slots whose trials end in every way and out of order."""
    draw = random.Random(0)
    study = optuna.create_study(directions=["maximize", "minimize"][:n_objectives], sampler=sampler)
    running: list[tuple[Trial, float]] = []
    for _ in range(n_trials):
        trial = study.ask()
        running.append((trial, suggest(trial, branches=branches)))
        if len(running) == 3:
            ended, worth = running.pop(draw.randrange(3))
            end(study, ended, worth, draw, n_objectives)
    return study


def end(study: Study, trial: Trial, worth: float, draw: random.Random, n_objectives: int) -> None:
    lot = draw.random()
    if n_objectives == 1:
        trial.report(worth - 1, 10)
        if lot < 0.3:
            trial.report(worth - 0.5, 30)
    if lot < 0.4:
        study.tell(trial, state=TrialState.PRUNED)
    elif lot < 0.5:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, [worth, draw.random()][:n_objectives])


@pytest.mark.parametrize("n_objectives", [1, 2])
@pytest.mark.parametrize(("make", "n_trials", "branches"), [(tpe, 120, True), (gp, 14, False)])
def test_below_the_bound_the_draws_are_those_of_optunas_own_sampler(
    make: Callable[[], BaseSampler], n_trials: int, branches: bool, n_objectives: int
) -> None:
    learnt = LEARNT if make is tpe else (TrialState.COMPLETE,)
    bounded = BoundedSampler(make(), Bound(n_best=5, n_latest=n_trials, states=learnt))
    options: dict[str, Any] = {"branches": branches, "n_objectives": n_objectives}
    theirs, ours = (search(sampler, n_trials, **options) for sampler in (make(), bounded))
    assert [trial.params for trial in ours.trials] == [trial.params for trial in theirs.trials]
    assert [trial.system_attrs for trial in ours.trials] == [trial.system_attrs for trial in theirs.trials]


class Watching(RandomSampler):
    """Notes what it is shown."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.shown: list[list[FrozenTrial]] = []
        self.news: list[list[FrozenTrial]] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self.news.append(study.get_trials(deepcopy=False))
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self.shown.append(study._get_trials(deepcopy=False))
        return {}


def test_above_the_bound_no_more_than_that_is_seen_and_each_trial_is_news_once() -> None:
    watching = Watching()
    study = search(BoundedSampler(watching, Bound(n_best=5, n_latest=10, states=LEARNT)), 200)
    finished = [[t for t in shown if t.state.is_finished()] for shown in watching.shown]
    assert max(len(shown) for shown in finished) == 15
    assert all(len(shown) - len(seen) <= 3 for shown, seen in zip(watching.shown, finished, strict=True))
    assert all(shown == sorted(shown, key=lambda trial: trial.number) for shown in watching.shown)
    news = [trial.number for shown in watching.news for trial in shown if trial.state in LEARNT]
    assert len(news) == len(set(news))
    learnt = {trial.number for trial in study.trials if trial.state in LEARNT}
    assert len(learnt - set(news)) <= 3  # those that ended after the last ask


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_what_tpe_takes_for_good_is_never_forgotten(direction: str) -> None:
    draw = random.Random(direction)
    study = optuna.create_study(direction=direction)
    for _ in range(1500):
        study.add_trial(drawn_trial(draw, n_complete=0.01))  # few are COMPLETE: the good ones are PRUNED ones too
    memory = Memory(study.directions, TPE_BOUND)
    trials = study.get_trials(deepcopy=False)
    memory.look(trials)
    remembered = [trials[number] for number in memory.remembered]
    assert len(remembered) <= TPE_BOUND.n_best + TPE_BOUND.n_latest
    learnt = [trial for trial in trials if trial.state in LEARNT]
    good, _ = _split_trials(study, learnt, 25)
    assert _split_trials(study, remembered, 25)[0] == good
    assert {trial.state for trial in good} == set(LEARNT)


def drawn_trial(draw: random.Random, *, n_complete: float) -> FrozenTrial:
    lot = draw.random()
    state = TrialState.COMPLETE if lot < n_complete else TrialState.PRUNED if lot < 0.9 else TrialState.FAIL
    value = round(draw.random(), 2)  # with ties
    steps = draw.sample([100, 200, 300], draw.randint(0, 3))
    return create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        params={"rate": 0.5},
        distributions={"rate": FloatDistribution(0, 1)},
        intermediate_values={step: draw.choice([value, float("inf")]) for step in steps},
    )


@pytest.mark.parametrize("n_objectives", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_a_resumed_sweep_remembers_what_an_unbroken_one_does(seed: int, n_objectives: int) -> None:
    """Looked at after every change, in the order in which trials end, and all at once afterwards."""
    draw = random.Random(seed)
    directions = ["maximize", "minimize"][:n_objectives]
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=seed))
    bound = Bound(n_best=6, n_latest=12, states=LEARNT)
    unbroken = Memory(study.directions, bound)
    running: list[Trial] = []
    for _ in range(150):
        running.append(study.ask())
        if len(running) == 8:
            ended = running.pop(draw.randrange(8))
            end(study, ended, round(draw.random(), 2), draw, n_objectives)
        unbroken.look(study.get_trials(deepcopy=False))
        resumed = Memory(study.directions, bound)
        resumed.look(study.get_trials(deepcopy=False))
        assert resumed.remembered == unbroken.remembered


def test_of_several_objectives_the_front_is_remembered() -> None:
    draw = random.Random(1)
    objectives = [Objective(metric="a", direction="maximize"), Objective(metric="b", direction="minimize")]
    values = {number: (round(draw.random(), 1), round(draw.random(), 1)) for number in range(300)}
    assert {*pareto_front(values, objectives)} == {*remembered_of(values.values(), n_best=50)} - {299}


def test_a_front_that_is_too_long_is_remembered_from_end_to_end() -> None:
    line = [(place, place) for place in range(101)]  # none beats another
    random.Random(0).shuffle(line)
    numbers = remembered_of(line, n_best=6)
    assert sorted(line[number][0] for number in numbers if number < 100) == [0, 20, 40, 60, 80, 100]


def remembered_of(values: Any, *, n_best: int) -> Sequence[int]:
    """Look at COMPLETE trials of two objectives, and remember but the last one beside the front."""
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    trials = [create_trial(values=list(pair)) for pair in values]
    for number, trial in enumerate(trials):
        trial.number = number
    memory = Memory(directions, Bound(n_best=n_best, n_latest=1, states=LEARNT))
    memory.look(trials)
    return memory.remembered


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_more_random_trials_than_the_memory_holds_do_not_keep_a_sampler_from_beginning(sampler: str) -> None:
    study = StudySpec.model_validate(
        {
            "objective": {"metric": "a", "direction": "maximize"},
            "sampler": {"type": sampler, "startup_trials": 3000},
            "parameters": {"rate": {"type": "float", "low": 0, "high": 1}},
        }
    )
    made = make_sampler(study, n_trials_before=0)
    assert isinstance(made, BoundedSampler)
    assert made._bound.n_latest == 3000
