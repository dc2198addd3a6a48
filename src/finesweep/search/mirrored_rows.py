"""Whole trials as rows of Optuna's tables, many in one transaction, made of Optuna's own mapped classes.

In: an RDBStorage, a study's id there, trials. Out: the rows that its own `create_new_trial` would write, at a small
part of the cost, since nothing is looked up in between. A test holds both ways to the same rows in every table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial

Row = Any  # an instance of one of Optuna's mapped classes, which are not typed


def count_trials(storage: RDBStorage, study_id: int) -> int:
    """Count a study's trials without reading them."""
    with _create_scoped_session(storage.scoped_session) as session:
        return int(models.TrialModel.count(session, models.StudyModel.find_or_raise_by_id(study_id, session)))


def insert_trials(storage: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> list[int]:
    """Insert trials that follow each other and the study's last one; give their ids.

    Raises NumbersTakenError, and writes nothing, unless the study holds as many trials as the first one's number.
    """
    parts = [list(_parts(trial)) for trial in trials]  # made before the transaction, which holds up other writers
    heads = [_head(study_id, trial) for trial in trials]
    with _create_scoped_session(storage.scoped_session) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        session.add_all(heads)
        session.flush()
        if heads and heads[0].count_past_trials(session) != trials[0].number:
            raise NumbersTakenError(f"trial {trials[0].number} of the study is not the next one")
        ids = [int(head.trial_id) for head in heads]
        for trial_id, rows in zip(ids, parts, strict=True):
            for row in rows:
                row.trial_id = trial_id
        session.bulk_save_objects(sorted((row for rows in parts for row in rows), key=lambda row: type(row).__name__))
    return ids


class NumbersTakenError(Exception):
    """Somebody else has written trials into the study."""


def _head(study_id: int, trial: FrozenTrial) -> Row:
    return models.TrialModel(
        study_id=study_id,
        number=trial.number,
        state=trial.state,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
    )


def _parts(trial: FrozenTrial) -> Iterator[Row]:
    for objective, value in enumerate(trial.values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield models.TrialValueModel(objective=objective, value=stored, value_type=kind)
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield models.TrialParamModel(
            param_name=name,
            param_value=distribution.to_internal_repr(value),
            distribution_json=distribution_to_json(distribution),
        )
    for key, item in trial.user_attrs.items():
        yield models.TrialUserAttributeModel(key=key, value_json=json.dumps(item))
    for key, item in trial.system_attrs.items():
        yield models.TrialSystemAttributeModel(key=key, value_json=json.dumps(item))
    of_steps = models.TrialIntermediateValueModel
    for step, value in trial.intermediate_values.items():
        reported, sort = of_steps.intermediate_value_to_stored_repr(value)
        yield of_steps(step=step, intermediate_value=reported, intermediate_value_type=sort)
