"""Optuna's own tables in the results database: a copy of the broker's study, for optuna.load_study and its dashboard.

Our events are the truth and go first; the copy follows trial by trial, and is complete whenever a sweep pauses or
ends. Inserting a finished trial whole costs a quarter of writing it as it grows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from finesweep.errors import ResultsError

P = ParamSpec("P")
T = TypeVar("T")


def _translated(method: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(method)
    def guarded(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(*arguments, **options)
        except (StorageInternalError, SQLAlchemyError) as error:
            said = " ".join(str(error.__cause__ or error).split())[:200]
            raise ResultsError(
                f"Optuna's tables cannot be written: {said}. Nothing is lost: `finesweep resume` completes them."
            ) from error

    return guarded


class OptunaMirror:
    """Copies a study's trials into an RDB, in the order of their numbers. Its failures are ResultsErrors."""

    @_translated
    def __init__(self, url: str, study: Study) -> None:
        self._study = study
        self._storage = _open_storage(url)
        copy = optuna.create_study(
            storage=self._storage,
            study_name=study.study_name,
            directions=study.directions,
            load_if_exists=True,
        )
        self._study_id = self._storage.get_study_id_from_name(copy.study_name)
        self._unfinished = {t.number: t._trial_id for t in copy.get_trials(deepcopy=False) if not t.state.is_finished()}
        self._n_copied = len(copy.get_trials(deepcopy=False))
        if self._n_copied > len(study.get_trials(deepcopy=False)):
            self.close()
            raise ResultsError(
                f"Optuna's tables already hold a study named {study.study_name!r} with trials that this sweep does not "
                "have. Give the sweep another --name, or delete that study: optuna delete-study --study-name "
                f"{study.study_name} --storage URL."
            )

    @_translated
    def follow(self) -> None:
        """Copy the finished trials before which none is unfinished."""
        self._update_unfinished()
        trials = self._study.get_trials(deepcopy=False)
        while self._n_copied < len(trials) and trials[self._n_copied].state.is_finished():
            self._insert(trials[self._n_copied])

    @_translated
    def complete(self) -> None:
        """Copy everything, trials that are to be resumed as RUNNING."""
        self._update_unfinished()
        for trial in self._study.get_trials(deepcopy=False)[self._n_copied :]:
            self._insert(trial)
        for key, value in self._study._storage.get_study_system_attrs(self._study._study_id).items():
            self._storage.set_study_system_attr(self._study_id, key, value)

    def close(self) -> None:
        _close(self._storage)

    def _insert(self, trial: FrozenTrial) -> None:
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=trial)
        self._n_copied += 1
        if not trial.state.is_finished():
            self._unfinished[trial.number] = trial_id

    def _update_unfinished(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        for number, trial_id in list(self._unfinished.items()):
            self._update(trial_id, trials[number])
            if trials[number].state.is_finished():
                self._storage.set_trial_state_values(trial_id, trials[number].state, trials[number].values)
                del self._unfinished[number]

    def _update(self, trial_id: int, trial: FrozenTrial) -> None:
        stored = self._storage.get_trial(trial_id)
        for step, value in trial.intermediate_values.items():
            if step not in stored.intermediate_values:
                self._storage.set_trial_intermediate_value(trial_id, step, value)
        for key, item in trial.user_attrs.items():
            if stored.user_attrs.get(key) != item:
                self._storage.set_trial_user_attr(trial_id, key, item)
        for key, item in trial.system_attrs.items():
            if stored.system_attrs.get(key) != item:
                self._storage.set_trial_system_attr(trial_id, key, item)


def holds_study(url: str, name: str) -> bool:
    """Tell whether Optuna's tables hold a study of this name."""
    with _opened(url) as storage:
        return any(study.study_name == name for study in storage.get_all_studies())


def delete_study(url: str, name: str) -> None:
    """Remove a study from Optuna's tables; one that is not there is no fault."""
    with _opened(url) as storage, contextlib.suppress(KeyError):
        storage.delete_study(storage.get_study_id_from_name(name))


@contextlib.contextmanager
def _opened(url: str) -> Iterator[RDBStorage]:
    storage = _open_storage(url)
    try:
        yield storage
    finally:
        _close(storage)


def _close(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _open_storage(url: str) -> RDBStorage:
    is_sqlite = url.startswith("sqlite")
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}} if is_sqlite else None)
    if is_sqlite:

        @event.listens_for(storage.engine, "connect")
        def _no_fsync_per_write(connection: DBAPIConnection, record: object) -> None:
            connection.cursor().execute("PRAGMA synchronous=NORMAL")  # the database is in WAL mode

        storage.engine.dispose()  # connections made before the listener

    return storage
