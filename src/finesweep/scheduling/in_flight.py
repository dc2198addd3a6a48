"""What Tune has been given to run and how it is doing: the broker's side of a backend that is driven by events.

In: Tune's ids, what workers say, the time. Out: assignments, answers, endings, to and from the broker. It must not know
Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finesweep.errors import ResourcesError
from finesweep.events import AttemptResult, Decision, Ending, Report
from finesweep.scheduling.ahead import AskedAhead
from finesweep.scheduling.assignments import Assignment, ending_of_stall
from finesweep.scheduling.backend import Tick
from finesweep.search.broker import NoTrial, TrialBroker
from finesweep.secrets import hide

if TYPE_CHECKING:
    from finesweep.scheduling.ray_worker import Message

# Workers that die before they say a word: after so many in a row something is wrong with the machine, not the trial.
MOST_FAILED_STARTS = 3


class Silence:
    """Tells which assignments have said nothing for too long, from when their worker first spoke."""

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """None: nothing is ever too long."""
        self._limit_s = limit_s
        self._clock = clock
        self._spoken_s: dict[str, float] = {}  # Tune's id -> when something was last said of the assignment
        self._too_long: set[str] = set()

    def break_(self, tune_id: str) -> None:
        self._spoken_s[tune_id] = self._clock()

    def too_long(self) -> list[str]:
        """List the assignments that have become too long silent, each once."""
        if self._limit_s is None:
            return []
        since_s = self._clock() - self._limit_s
        found = [tune_id for tune_id, spoken_s in self._spoken_s.items() if spoken_s <= since_s]
        for tune_id in found:
            del self._spoken_s[tune_id]
            self._too_long.add(tune_id)
        return found

    def forget(self, tune_id: str) -> str | None:
        """Forget an assignment that is over; give the reason, if that is that it was too long silent."""
        self._spoken_s.pop(tune_id, None)
        if tune_id not in self._too_long:
            return None
        self._too_long.remove(tune_id)
        return f"stalled: not a word for {(self._limit_s or 0) / 60:g} minutes; its worker was killed"


class InFlight:
    """Which Tune trial is which assignment, and how its trials are doing: what searcher and scheduler need to know."""

    def __init__(self, broker: TrialBroker, tick: Tick, ahead: AskedAhead, silence: Silence, *, n_slots: int) -> None:
        self.broker = broker
        self.silence = silence
        self._tick = tick
        self._ahead = ahead
        self.n_slots = n_slots
        self._numbers: dict[str, set[int]] = {}  # Tune's id -> trials that have not ended yet
        self._begun: set[int] = set()
        self._failed_starts = 0
        self._fault: Exception | None = None

    def __getstate__(self) -> None:
        """Nothing: Tune pickles its searcher and scheduler for a restore that we never ask for."""
        return

    def next(self, tune_id: str) -> Assignment | NoTrial:
        """Give a slot that is free what it is to do."""
        if len(self._numbers) >= self.n_slots:
            return NoTrial.WAIT
        found = self._ahead.next()
        while found is NoTrial.DRAWING and not self._numbers:  # Tune would sleep for a second
            self._tick()
            found = self._ahead.next()
        if isinstance(found, tuple):
            self._numbers[tune_id] = {trial.number for trial in found}
        return found

    def tick(self) -> None:
        self._tick()
        self._ahead.prepare()

    def hear(self, tune_id: str, messages: Sequence[Message]) -> tuple[dict[int, Decision], dict[int, Decision]]:
        """Take what a worker has said; give the answers to its reports, and what its trials must know beside them."""
        answers: dict[int, Decision] = {}
        if messages:
            self.silence.break_(tune_id)
        with self.broker.together():
            for number, said in messages:
                self._begin(number)
                match said:
                    case Report():
                        answers[number] = self.broker.report(number, said)
                    case AttemptResult():
                        self._end(tune_id, number, said)
                    case facts:
                        self.broker.describe(number, facts)
        words = {number: self.broker.poll(number) for number in self._numbers[tune_id]}
        return answers, {number: word for number, word in words.items() if word is not Decision.CONTINUE}

    def is_over(self, tune_id: str) -> bool:
        """Tell whether every trial of the assignment has ended, and forget the assignment if so."""
        if self._numbers[tune_id]:
            return False
        del self._numbers[tune_id]
        self.silence.forget(tune_id)
        return True

    def withdraw(self, tune_id: str) -> None:
        """Give back an assignment that has not ended: it is not charged for a worker that never got to it."""
        for number in sorted(self._numbers.pop(tune_id, ()), reverse=True):  # each is put before those that wait
            self._begun.discard(number)
            self.broker.give_back(number)
        self.silence.forget(tune_id)

    def lose(self, tune_id: str, reason: str) -> None:
        """Have the trials of a dead worker begun again; those that it had not begun are not charged for it."""
        reason = hide(reason)  # what Ray says of a worker may hold what that said last
        numbers = self._numbers.pop(tune_id, set())
        has_begun = bool(numbers & self._begun)
        stall = self.silence.forget(tune_id)
        ending = Ending.LOST if stall is None else ending_of_stall(len(numbers))
        with self.broker.together():
            for number in sorted(numbers, reverse=True):
                if number in self._begun:
                    self._begun.remove(number)
                    self.broker.finish(number, AttemptResult(ending, reason=stall or reason))
                else:
                    self.broker.give_back(number)
        if not numbers or has_begun:
            return
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._fault = ResourcesError(
                f"{self._failed_starts} workers in a row died before they began a trial. The last one: {reason}"
            )
            self.broker.halt("workers cannot start", pause=True)

    def _begin(self, number: int) -> None:
        self._begun.add(number)
        self._failed_starts = 0
        self.broker.begin(number)

    def _end(self, tune_id: str, number: int, result: AttemptResult) -> None:
        self._numbers[tune_id].remove(number)
        self._begun.discard(number)
        self.broker.finish(number, result)

    @contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Keep what goes wrong in the driver, as a database that is gone: Tune turns it into text."""
        try:
            yield
        except Exception as error:
            self._fault = self._fault or error
            raise

    def raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
