"""Optuna's own tables in the results database: a copy of the broker's study, for optuna.load_study and its dashboard.

Our events are the truth and go first; the copy follows trial by trial, and is complete whenever a sweep pauses or
ends. Finished trials are inserted whole, some in a transaction.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import takewhile
from typing import ParamSpec, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from finesweep.errors import ResultsError
from finesweep.search.mirrored_rows import NumbersTakenError, count_trials, insert_trials

TRIALS_AT_ONCE = 16  # in a transaction: some milliseconds for which other writers of an SQLite file wait
BUSY_TIMEOUT_S = 120.0  # as results.database waits for whoever holds an SQLite file

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)

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
    """Copies a study's trials into an RDB, in the order of their numbers. Its failures are ResultsErrors.

    While the sweep runs a thread of its own copies, so that no report waits for it; or `copying`, which must do one
    thing at a time.
    """

    @_translated
    def __init__(self, url: str, study: Study, *, copying: Executor | None = None) -> None:
        self._study = study
        self._storage = _open_storage(url)
        copy = optuna.create_study(
            storage=self._storage,
            study_name=study.study_name,
            directions=study.directions,
            load_if_exists=True,
        )
        self._study_id = self._storage.get_study_id_from_name(copy.study_name)
        self._turns: deque[Future[None]] = deque()  # of the thread; the first may be at work or have failed
        self._copying = copying
        self._is_closed = False
        self._n_copied = count_trials(self._storage, self._study_id)
        if self._n_copied > len(self._trials()):
            self.close()
            raise self._not_ours()
        unfinished = self._storage.get_all_trials(self._study_id, deepcopy=False, states=_UNFINISHED)
        self._unfinished = {trial.number: trial._trial_id for trial in unfinished}

    def follow(self) -> None:
        """Have the finished trials before which none is unfinished copied. Raises what earlier copying failed with."""
        if self._copying is None:
            self._copying = ThreadPoolExecutor(max_workers=1, thread_name_prefix="optuna-mirror")
        while self._turns and self._turns[0].done():
            self._turns.popleft().result()
        if len(self._turns) < 2:  # one that is at work may already have looked; the next one has not
            self._turns.append(self._copying.submit(self._copy_finished))

    def wait(self) -> None:
        """Wait until what was to be copied is. Raises what that failed with."""
        while self._turns:
            self._turns.popleft().result()

    def complete(self) -> None:
        """Copy everything before returning, trials that are to be resumed as RUNNING. The study must stand still."""
        self.wait()
        self._copy_rest()

    def close(self) -> None:
        """End copying after the transaction that is under way, and wait for that."""
        self._is_closed = True
        if self._copying is not None:
            self._copying.shutdown(cancel_futures=True)
        _close(self._storage)

    # --- copying: by the thread, or while it has nothing to do --------------------------------------------------

    @_translated
    def _copy_finished(self) -> None:
        trials = self._trials()
        self._update_unfinished(trials, also_running=False)
        self._insert(list(takewhile(lambda trial: trial.state.is_finished(), trials[self._n_copied :])))
        self._storage.remove_session()

    @_translated
    def _copy_rest(self) -> None:
        trials = self._trials()
        self._update_unfinished(trials, also_running=True)
        self._insert(trials[self._n_copied :])
        stored = self._storage.get_study_system_attrs(self._study_id)
        for key, value in self._study._storage.get_study_system_attrs(self._study._study_id).items():
            if key not in stored or stored[key] != value:
                self._storage.set_study_system_attr(self._study_id, key, value)

    def _trials(self) -> list[FrozenTrial]:
        """List the study's trials as they are now; what they hold is replaced, never changed."""
        return self._study._storage.get_all_trials(self._study._study_id, deepcopy=False)

    def _insert(self, trials: Sequence[FrozenTrial]) -> None:
        for first in range(0, len(trials), TRIALS_AT_ONCE):
            if self._is_closed:
                return
            batch = trials[first : first + TRIALS_AT_ONCE]
            try:
                ids = insert_trials(self._storage, self._study_id, batch)
            except NumbersTakenError as error:
                raise self._not_ours() from error
            self._n_copied += len(batch)
            pairs = zip(batch, ids, strict=True)
            self._unfinished |= {trial.number: trial_id for trial, trial_id in pairs if not trial.state.is_finished()}

    def _update_unfinished(self, trials: Sequence[FrozenTrial], *, also_running: bool) -> None:
        for number, trial_id in list(self._unfinished.items()):
            trial = trials[number]
            if also_running or trial.state.is_finished():
                self._update(trial_id, trial)
            if trial.state.is_finished():
                self._storage.set_trial_state_values(trial_id, trial.state, trial.values)
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

    def _not_ours(self) -> ResultsError:
        return ResultsError(
            f"Optuna's tables hold a study named {self._study.study_name!r} with trials that this sweep does not "
            "have. Give the sweep another --name, or delete that study: optuna delete-study --study-name "
            f"{self._study.study_name} --storage URL."
        )


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


def open_to_read(url: str) -> RDBStorage:
    """Open Optuna's tables, which must be there, so that nothing can be written through it."""
    options = {"options": "-c default_transaction_read_only=on"}
    return _open_storage(url, "query_only=ON", options=options, are_there=True)


def _open_storage(
    url: str,
    pragma: str = "synchronous=NORMAL",  # no fsync for each write: the database is in WAL mode
    *,
    options: Mapping[str, str] | None = None,
    are_there: bool = False,
) -> RDBStorage:
    """Open Optuna's tables. `pragma` is for SQLite, `options` for connecting to a server; `are_there`: make none."""
    is_sqlite = url.startswith("sqlite")
    connecting = {"timeout": BUSY_TIMEOUT_S} if is_sqlite else options
    storage = RDBStorage(
        url,
        engine_kwargs={"connect_args": connecting} if connecting else None,
        skip_compatibility_check=are_there,
        skip_table_creation=are_there,
    )
    if is_sqlite:

        @event.listens_for(storage.engine, "connect")
        def _set_up(connection: DBAPIConnection, record: object) -> None:
            connection.cursor().execute(f"PRAGMA {pragma}")

        storage.engine.dispose()  # connections made before the listener

    return storage
