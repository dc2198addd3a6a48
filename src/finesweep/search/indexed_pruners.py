"""Optuna's asynchronous halving, Hyperband and percentile pruners, deciding the same without reading all trials.

Optuna's read every trial of the study at every report (24 ms a trial with the median at 10,000 trials, 43 ms with
Hyperband). These keep what they compare with in order, and read a study that is resumed once.
"""

from __future__ import annotations

import math
from binascii import crc32
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import accumulate, count

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from finesweep.search.ended import Ended


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020), as Optuna's: of the trials at a rung, the best go on."""

    def __init__(
        self,
        *,
        first_rung: int,
        reduction_factor: int,
        competes: Callable[[Study, FrozenTrial], bool] = lambda study, trial: True,
    ) -> None:
        """Compare a trial with those of the study that `competes` tells."""
        self._first_rung = first_rung
        self._reduction_factor = reduction_factor
        self._competes = competes
        self._rungs: defaultdict[int, list[float]] | None = None  # the values at each, rising

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        if self._rungs is None:
            self._rungs = self._read_rungs(study)
        value = trial.intermediate_values[step]
        rung = next(rung for rung in count() if _rung_key(rung) not in trial.system_attrs)
        while step >= self._first_rung * self._reduction_factor**rung:
            if math.isnan(value):
                return True
            study._storage.set_trial_system_attr(trial._trial_id, _rung_key(rung), value)
            insort(self._rungs[rung], value)
            if not self._goes_on(value, self._rungs[rung], study.direction):
                return True
            rung += 1
        return False

    def _goes_on(self, value: float, rung: list[float], direction: StudyDirection) -> bool:
        """Tell whether a value is among the best; of the first few at a rung, whether it is the best so far."""
        n_best = max(1, len(rung) // self._reduction_factor)
        return value >= rung[-n_best] if direction is StudyDirection.MAXIMIZE else value <= rung[n_best - 1]

    def _read_rungs(self, study: Study) -> defaultdict[int, list[float]]:
        """Read the rungs of trials that were judged before this pruner was made."""
        rungs = defaultdict(list)
        for trial in study.get_trials(deepcopy=False):
            if self._competes(study, trial):
                for rung in count():
                    if _rung_key(rung) not in trial.system_attrs:
                        break
                    rungs[rung].append(trial.system_attrs[_rung_key(rung)])
        for values in rungs.values():
            values.sort()
        return rungs


class HyperbandPruner(BasePruner):
    """Brackets of halving that differ in their first rung (Li et al. 2018), as Optuna's deals trials out to them."""

    def __init__(self, *, first_rung: int, longest: int, reduction_factor: int) -> None:
        reaches_a_rung = longest >= first_rung
        n_brackets = math.floor(math.log(longest / first_rung, reduction_factor)) + 1 if reaches_a_rung else 0
        shares = [
            math.ceil(n_brackets * reduction_factor**further / (further + 1)) for further in reversed(range(n_brackets))
        ]
        self._ends = list(accumulate(shares))  # of the brackets' lots
        self._brackets = [
            HalvingPruner(
                first_rung=first_rung * reduction_factor**bracket,
                reduction_factor=reduction_factor,
                competes=partial(self._is_in, bracket),
            )
            for bracket in range(n_brackets)
        ]

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return bool(self._brackets) and self._brackets[self._bracket(study, trial)].prune(study, trial)

    def _is_in(self, bracket: int, study: Study, trial: FrozenTrial) -> bool:
        return self._bracket(study, trial) == bracket

    def _bracket(self, study: Study, trial: FrozenTrial) -> int:
        lot = crc32(f"{study.study_name}_{trial.number}".encode()) % self._ends[-1]
        return next(bracket for bracket, end in enumerate(self._ends) if lot < end)


class PercentilePruner(BasePruner):
    """Keep the best `percentile` percent, as Optuna's: a trial's best report against COMPLETE trials' at its step."""

    def __init__(self, percentile: float, *, n_startup_trials: int, n_warmup_steps: int) -> None:
        self._percentile = percentile
        self._n_startup_trials = n_startup_trials
        self._n_warmup_steps = n_warmup_steps
        self._ended = Ended()
        self._n_complete = 0
        self._at: defaultdict[int, list[float]] = defaultdict(list)  # step -> values there, rising

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        for other in self._ended.since(study.get_trials(deepcopy=False)):
            if other.state is TrialState.COMPLETE:
                self._n_complete += 1
                for reached, value in other.intermediate_values.items():
                    if not math.isnan(value):
                        insort(self._at[reached], value)
        step = trial.last_step
        if step is None or step < self._n_warmup_steps or self._n_complete < max(1, self._n_startup_trials):
            return False
        reports = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not reports:
            return True
        if not self._at[step]:
            return False
        if study.direction is StudyDirection.MAXIMIZE:
            return max(reports) < percentile_of(self._at[step], 100 - self._percentile)
        return min(reports) > percentile_of(self._at[step], self._percentile)


def percentile_of(rising: list[float], percentile: float) -> float:
    """Interpolate between the values of a sorted list as numpy does, to the last bit."""
    place = (len(rising) - 1) * (percentile / 100)
    below = math.floor(place)
    share, low, high = place - below, rising[below], rising[min(below + 1, len(rising) - 1)]
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def _rung_key(rung: int) -> str:
    return f"completed_rung_{rung}"  # Optuna's word for it, which stays with the trial
