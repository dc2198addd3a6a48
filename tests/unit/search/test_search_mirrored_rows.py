"""Rows made of Optuna's classes: the same that its own insertion writes, in every table."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from finesweep.search.mirrored_rows import NumbersTakenError, count_trials, insert_trials

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "decay": FloatDistribution(0.1, 0.7, step=0.2),
    "epochs": IntDistribution(1, 5),
    "lora.rank": CategoricalDistribution([8, 16, None, "auto", True, 0.5]),
}


def drawn_trial(number: int, n_objectives: int, draw: random.Random) -> FrozenTrial:
    state = draw.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING])
    chosen = dict(draw.sample(sorted(DISTRIBUTIONS.items()), draw.randint(0, 4)))
    numbers = [0.5, -1e300, math.inf, -math.inf, 3.0]
    steps = draw.sample(range(1000), draw.randint(0, 5)) if n_objectives == 1 else []
    began = datetime(2026, 7, 1, 12) + timedelta(seconds=number)
    is_finished = state.is_finished()
    return FrozenTrial(
        number=number,
        trial_id=-1,
        state=state,
        value=None,
        values=[draw.choice(numbers) for _ in range(n_objectives)] if state is TrialState.COMPLETE else None,
        datetime_start=began,
        datetime_complete=began + timedelta(seconds=7) if is_finished else None,
        params={name: example(distribution, draw) for name, distribution in chosen.items()},
        distributions=chosen,
        user_attrs={"reason": "worker lost: Ω", "value_step": 3} if draw.random() < 0.5 else {},
        system_attrs={"completed_rung_0": 0.5, "tpe": {"a": [1, None]}} if draw.random() < 0.5 else {},
        intermediate_values={step: draw.choice([*numbers, math.nan]) for step in steps},
    )


def example(distribution: BaseDistribution, draw: random.Random) -> object:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return draw.choice(choices)
        case FloatDistribution(step=None):
            return draw.uniform(distribution.low, distribution.high)
        case FloatDistribution():
            return distribution.low
        case _:
            return 3


def tables(storage: RDBStorage) -> dict[str, list[tuple[object, ...]]]:
    """Read every table of the database, without the ids that rows get as they are inserted, save those of trials."""
    found = {}
    with storage.engine.connect() as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            own = {column.name for column in table.primary_key if column.name.endswith("_id")} - {"trial_id"}
            rows = connection.execute(sa.select(*(column for column in table.columns if column.name not in own)))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


@pytest.fixture
def storages(tmp_path: Path) -> Sequence[RDBStorage]:
    return [RDBStorage(f"sqlite:///{tmp_path / name}.db") for name in ("theirs", "ours")]


@pytest.mark.parametrize("n_objectives", [1, 2])
def test_rows_are_those_of_optunas_own_insertion(storages: Sequence[RDBStorage], n_objectives: int) -> None:
    draw = random.Random(n_objectives)
    trials = [drawn_trial(number, n_objectives, draw) for number in range(40)]
    theirs, ours = storages
    ids = []
    for storage in storages:
        for name in ("another", "study"):  # so that ids are not numbers
            study_id = storage.create_new_study([StudyDirection.MAXIMIZE] * n_objectives, name)
            if storage is theirs or name == "another":
                for trial in trials[:3] if name == "another" else trials:
                    storage.create_new_trial(study_id, trial)
        ids.append(study_id)
    for first in range(0, 40, 16):
        inserted = insert_trials(ours, ids[1], trials[first : first + 16])
        assert inserted == list(range(first + 4, min(first + 20, 44)))
    assert tables(ours) == tables(theirs)
    assert len(tables(ours)["trials"]) == 43
    assert count_trials(ours, ids[1]) == 40
    studies = [optuna.load_study(study_name="study", storage=storage) for storage in storages]
    assert repr(studies[0].trials) == repr(studies[1].trials)


def test_a_number_that_is_not_the_next_is_refused_and_nothing_written(storages: Sequence[RDBStorage]) -> None:
    storage = storages[0]
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    draw = random.Random(0)
    trials = [drawn_trial(number, 1, draw) for number in range(4)]
    insert_trials(storage, study_id, trials[:2])
    before = tables(storage)
    for wrong in (trials[1:3], trials[3:]):
        with pytest.raises(NumbersTakenError):
            insert_trials(storage, study_id, wrong)
    assert tables(storage) == before
    assert insert_trials(storage, study_id, []) == []
    insert_trials(storage, study_id, trials[2:])
    assert count_trials(storage, study_id) == 4
