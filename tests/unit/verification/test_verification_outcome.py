"""What is read off the trainings of a verification, and how it is told."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.unit.verification.conftest import Plans

from finesweep.events import Event, Grid, TrialState
from finesweep.notebook import open_results as open_notebook
from finesweep.results.columns import json_rows
from finesweep.results.frames import Results, open_results
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.verification.found import Difference, Outcome, outcome_json
from finesweep.verification.outcome import outcome_of, read_outcome
from finesweep.verification.plan import VERIFICATION, VerificationPlan, created_at
from finesweep.verification.record import verification_of
from finesweep.verification.statistics import estimate
from finesweep.views.compare import compare
from finesweep.views.findings import Kind, findings
from finesweep.views.printing import plain_text
from finesweep.views.verified import lines_of, outcome_text, spread_text, verification_table

GRID = Grid("examples", 100, 400)
STUDY = {
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "parameters": {"arm": {"type": "categorical", "choices": ["a", "b", "c", "z"]}},
}
RACE = {"a": (0.91, 0.92, 0.93), "b": (0.90, 0.93, 0.91), "c": (0.5, 0.51)}
CONFIRMED = {"a": (0.90, 0.92), "z": (0.85, 0.84)}
NOTHING = pd.DataFrame({"parameter": []})


class Verified:
    """A sweep with one trial, and its verification, into which trainings are put."""

    def __init__(self, writer: ResultsWriter, make_spec: Callable[..., SweepSpec], trial_events: Any) -> None:
        self.writer, self._make_spec, self._events = writer, make_spec, trial_events
        self._n: dict[str, int] = {}
        writer.create_sweep(self._spec("tickets"), grid=GRID, provenance={})
        self.train("tickets", "a", None, 0.95)

    @property
    def results(self) -> Results:
        return open_results(self.writer.url)

    def _spec(self, name: str, **data: Any) -> SweepSpec:
        files = {"train": "/t.jsonl", "validation": "/v.jsonl", **data}
        parameters = STUDY["parameters"] | {"seed": {"type": "int", "low": 0, "high": 99}}
        return self._make_spec(name, study=STUDY | {"parameters": parameters}, data=files)

    def begin(self, plan: VerificationPlan, name: str = "tickets-verify", *, has_test: bool = True) -> None:
        whole = plan.model_copy(update={"created_at": created_at(self.results, "tickets")})
        spec = self._spec(name, **({"test": "/x.jsonl"} if has_test else {}))
        self.writer.create_sweep(spec, grid=GRID, provenance={VERIFICATION: whole.model_dump(mode="json")})

    def train(
        self,
        name: str,
        arm: str,
        seed: int | None,
        value: float,
        *,
        test: float | None = None,
        state: TrialState = TrialState.COMPLETE,
        reason: str | None = None,
    ) -> None:
        number = self._n.get(name, 0)
        self._n[name] = number + 1
        configuration = {"arm": arm} if seed is None else {"arm": arm, "seed": seed}
        facts = {} if test is None else {"test_metrics": {"accuracy": test, "loss": None}}
        events: list[Event] = self._events(
            number, [value], configuration=configuration, state=state, reason=reason, facts=facts
        )
        self.writer.listener(name)(events)

    def train_all(self, plan: VerificationPlan, *, drop: float = 0.0, has_test: bool = True) -> None:
        """Train what a plan of a, b and c comes to; on test rows each is `drop` worse."""
        for arm, values in RACE.items():
            for seed, value in zip(plan.race_seeds, values, strict=False):
                self.train("tickets-verify", arm, seed, value, test=value - drop if has_test else None)
        for arm, values in CONFIRMED.items():
            for seed, value in zip(plan.seeds, values, strict=True):
                self.train("tickets-verify", arm, seed, value, test=value - drop if has_test else None)

    def end(self, name: str = "tickets-verify", state: SweepState = SweepState.FINISHED) -> None:
        self.writer.set_state(name, state)

    def outcome(self) -> Outcome:
        found = read_outcome(self.results, "tickets-verify")
        assert found is not None
        return found


@pytest.fixture
def verified(tmp_path: Path, make_spec: Callable[..., SweepSpec], trial_events: Any) -> Iterator[Verified]:
    with open_writer(tmp_path / "r.db", clock=lambda: 1000.0) as writer:
        yield Verified(writer, make_spec, trial_events)


def test_the_headline_is_of_the_test_rows_and_the_validation_rows_stand_beside(
    verified: Verified, make_plan: Plans
) -> None:
    plan = make_plan()
    verified.begin(plan)
    verified.train_all(plan, drop=0.1)
    verified.end()
    outcome = verified.outcome()
    assert outcome.is_over and outcome.won is not None and outcome.compared is not None
    assert (outcome.split, outcome.winner, outcome.baseline, outcome.n_ended) == ("test", "trial 0", "defaults", 12)
    test, validation = outcome.won.confirmed
    assert (test.split, test.estimate) == ("test", estimate([0.90 - 0.1, 0.92 - 0.1]))
    assert (validation.split, validation.estimate) == ("validation", estimate([0.90, 0.92]))
    assert outcome.compared.confirmed[0].estimate == estimate([0.85 - 0.1, 0.84 - 0.1])
    paired = estimate([0.90 - 0.85, 0.92 - 0.84])
    assert outcome.difference is not None
    assert (outcome.difference.n, outcome.difference.mean) == (2, pytest.approx(paired.mean))
    assert outcome.difference.half_width == pytest.approx(paired.half_width)
    a, _, c, z = outcome.arms
    assert [arm.n_race for arm in outcome.arms] == [3, 3, 2, 0]
    assert [arm.dropped_after for arm in outcome.arms] == [None, None, 2, None]
    assert (a.race_mean, c.race_mean, z.race_mean) == (pytest.approx(0.92), pytest.approx(0.505), None)
    assert a.race_half_width is not None and c.race_half_width is not None
    assert c.race_half_width == pytest.approx(a.race_half_width * math.sqrt(3 / 2))  # of fewer rounds
    shares = [arm.probability_best for arm in outcome.arms]
    assert sum(share or 0.0 for share in shares) == pytest.approx(1.0)
    assert shares[0] is not None and shares[1] is not None and shares[2] is not None
    assert shares[0] > shares[1] > shares[2]
    assert outcome.notes == ()


def test_a_baseline_that_was_in_the_race_is_told_to_be_both(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan(baseline="c")
    verified.begin(plan)
    verified.train_all(plan)
    for seed in plan.seeds:
        verified.train("tickets-verify", "c", seed, 0.5 + seed / 1000, test=0.6)
    verified.end()
    rows = verification_table(verified.outcome()).rows
    assert [row["role"] for row in rows] == ["winner", None, "baseline, dropped after 2 seeds"]
    assert [row["label"] for row in rows] == ["trial 0", "trial 1", "defaults"]


def test_what_exports_are_given_is_json_and_whole(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan()
    verified.begin(plan)
    assert verification_of(verified.results, "tickets") is None
    verified.train_all(plan, drop=0.1)
    assert verification_of(verified.results, "tickets") is None  # it is not over
    verified.end()
    found = verification_of(verified.results, "tickets")
    assert found is not None and json.loads(json.dumps(found)) == found
    assert (found["trial"], found["metric"], found["split"], found["n"]) == (0, "accuracy", "test", 2)
    assert (found["seeds"], found["search_value"], found["level"]) == ([20, 21], 0.9, 0.95)
    half = estimate([0.80, 0.82]).half_width
    assert found["interval"] == [pytest.approx(0.81 - (half or 0)), pytest.approx(0.81 + (half or 0))]
    assert found["prediction_interval"][0] < found["interval"][0] < found["mean"]
    assert found["baseline"]["label"] == "defaults" and found["baseline"]["mean"] == pytest.approx(0.745)
    assert found["difference"]["mean"] == pytest.approx(0.065)
    assert found["validation"]["mean"] == pytest.approx(0.91)
    assert [arm["label"] for arm in found["arms"]] == ["trial 0", "trial 1", "trial 2", "defaults"]
    json.dumps(outcome_json(verified.outcome()))


def test_without_test_rows_the_bias_of_the_choice_is_told(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan()
    verified.begin(plan, has_test=False)
    verified.train_all(plan, has_test=False)
    verified.end()
    outcome = verified.outcome()
    assert (outcome.split, outcome.won and len(outcome.won.confirmed)) == ("validation", 1)
    [note] = outcome.notes
    assert note.startswith("There are no test rows: the seeds are new, the validation rows are those by which")
    assert lines_of(outcome)[-1] == note


def test_a_confirmation_that_diverged_is_told_and_not_dropped_silently(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan("a", seeds=3)
    verified.begin(plan)
    for seed, value in ((20, 0.9), (21, 0.92)):
        verified.train("tickets-verify", "a", seed, value, test=value)
        verified.train("tickets-verify", "z", seed, 0.8, test=0.8)
    verified.train("tickets-verify", "a", 22, 0.99, state=TrialState.PRUNED, reason="diverged")
    verified.train("tickets-verify", "z", 22, 0.8, test=0.7)
    verified.end()
    outcome = verified.outcome()
    assert outcome.won is not None and outcome.difference is not None
    assert (outcome.won.confirmed[0].n_lost, outcome.won.lost) == (1, ("diverged",))
    assert outcome.difference.n == 2  # over the seeds that both have
    said = outcome_text(outcome)
    assert said.startswith("verified over 2 seeds of 3, the others came to nothing: 0.91 ±")
    assert "diverged" in plain_text(verification_table(outcome))


def test_weights_that_were_not_kept_are_told(verified: Verified, make_plan: Plans) -> None:
    verified.begin(make_plan("a", baseline=None))
    verified.train("tickets-verify", "a", 20, 0.9, test=0.8)
    verified.train("tickets-verify", "a", 21, 0.91)
    verified.end()
    assert verified.outcome().notes[0] == (
        "Not judged on the test rows, for want of their weights: 1 of the trainings."
    )


def test_rows_that_only_one_of_two_was_judged_by_are_not_the_headline(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan("a")
    verified.begin(plan)
    for seed in plan.seeds:
        verified.train("tickets-verify", "a", seed, 0.9 + seed / 1000)
        verified.train("tickets-verify", "z", seed, 0.8, test=0.5)
    verified.end()
    outcome = verified.outcome()
    assert outcome.compared is not None
    assert (outcome.split, outcome.compared.confirmed[0].estimate.mean) == ("validation", 0.8)
    assert outcome.notes[0].startswith("accuracy is not known on the test rows")


def test_a_metric_that_test_rows_do_not_have_leaves_the_validation_rows(verified: Verified, make_plan: Plans) -> None:
    verified.begin(make_plan("a", baseline=None))
    verified.train("tickets-verify", "a", 20, 0.9)
    verified.end()
    outcome = verified.outcome()
    assert outcome.split == "validation"
    assert outcome.notes[0] == "accuracy is not known on the test rows: what is shown is of the validation rows."


def test_a_winner_that_is_the_baseline_is_not_compared_with_itself(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan("a", baseline="a")
    verified.begin(plan)
    for seed in plan.seeds:
        verified.train("tickets-verify", "a", seed, 0.9, test=0.9)
    verified.end()
    outcome = verified.outcome()
    assert (outcome.winner, outcome.baseline, outcome.difference) == ("trial 0", None, None)
    assert "The winner is the baseline itself: there is nothing to compare it with." in outcome.notes


def test_repeats_that_are_all_equal_make_one_think_of_the_seed(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan("a", baseline=None)
    verified.begin(plan)
    for seed in plan.seeds:
        verified.train("tickets-verify", "a", seed, 0.9, test=0.9)
    verified.end()
    assert any("does not depend on the seed" in note for note in verified.outcome().notes)


def test_nothing_found_is_told(verified: Verified, make_plan: Plans) -> None:
    plan = make_plan("a", baseline=None)
    verified.begin(plan)
    for seed in plan.seeds:
        verified.train("tickets-verify", "a", seed, 0.9, state=TrialState.FAILED, reason="out of luck")
    verified.end(state=SweepState.FAILED)
    outcome = verified.outcome()
    assert outcome_text(outcome) == "tickets-verify, its verification, found nothing: no training of it has a value."
    assert verification_of(verified.results, "tickets") is None


def test_the_latest_that_is_over_counts_and_one_under_way_is_told(verified: Verified, make_plan: Plans) -> None:
    assert outcome_of(verified.results, "tickets") is None
    plan = make_plan("a", baseline=None)
    verified.begin(plan)
    verified.train("tickets-verify", "a", 20, 0.9, test=0.9)
    verified.end(state=SweepState.INTERRUPTED)
    first = outcome_of(verified.results, "tickets")
    assert first is not None
    assert outcome_text(first) == (
        "tickets-verify, its verification, is INTERRUPTED: 1 of at most 2 trainings have ended."
    )
    verified.train("tickets-verify", "a", 21, 0.8, test=0.8)
    verified.end()
    verified.begin(plan, "tickets-verify-2")
    latest = outcome_of(verified.results, "tickets")
    assert latest is not None and (latest.sweep, latest.is_over) == ("tickets-verify", True)


def test_a_verification_of_an_earlier_sweep_of_that_name_is_not_of_this_one(
    verified: Verified, make_plan: Plans, make_spec: Callable[..., SweepSpec]
) -> None:
    verified.begin(make_plan("a", baseline=None))
    verified.end()
    verified.writer.delete("tickets")
    with open_writer(verified.writer.url, clock=lambda: 2000.0) as later:
        later.create_sweep(make_spec(), grid=GRID, provenance={})
    assert outcome_of(verified.results, "tickets") is None


@pytest.mark.parametrize(
    ("difference", "direction", "said"),
    [
        (Difference(5, 0.06, 0.02), "maximize", "0.060 ± 0.020 over the same seeds, more than chance explains."),
        (Difference(5, -0.06, 0.02), "minimize", "0.060 ± 0.020 over the same seeds, more than chance explains."),
        (Difference(5, -0.01, 0.02), "minimize", "0.010 ± 0.020 over the same seeds, which chance alone may explain."),
        (
            Difference(5, 0.06, 0.02),
            "minimize",
            "-0.060 ± 0.020 over the same seeds, a loss that chance does not explain.",
        ),
        (Difference(1, 0.06, None), "maximize", "0.06."),
    ],
)
def test_a_gain_is_told_with_what_chance_may_have_to_do_with_it(
    verified: Verified, make_plan: Plans, difference: Difference, direction: str, said: str
) -> None:
    plan = make_plan("a")
    verified.begin(plan)
    for seed, value in zip(plan.seeds, (0.9, 0.92), strict=True):
        verified.train("tickets-verify", "a", seed, value, test=value)
        verified.train("tickets-verify", "z", seed, value - 0.1, test=value - 0.1)
    verified.end()
    outcome = dataclasses.replace(verified.outcome(), difference=difference, direction=direction)
    assert spread_text(outcome) == (
        "Repeats that differ by their seed alone spread by 0.01414 (standard deviation); the gain over the defaults is "
        + said
    )


def test_one_training_has_a_value_and_nothing_more(verified: Verified, make_plan: Plans) -> None:
    verified.begin(make_plan("a", seeds=1, baseline="1"))
    verified.train("tickets-verify", "a", 20, 0.9)
    verified.end()
    first, second, *_ = lines_of(verified.outcome())
    assert first.startswith("Verified over 1 seed: 0.9 (accuracy on the validation rows;")
    assert second == "It is the value of one training, which says nothing of the spread."


def test_compare_and_findings_say_what_was_found(verified: Verified, make_plan: Plans) -> None:
    [said] = told(verified, "tickets")
    assert said == (
        "The best is not verified: of many noisy trials the best looks better than it is.",
        "finesweep verify tickets",
    )
    plan = make_plan()
    verified.begin(plan)
    [(_, advice)] = told(verified, "tickets")
    assert advice == "finesweep resume tickets-verify"
    verified.writer.acquire("tickets-verify", Holder.this_process())
    verified.end(state=SweepState.RUNNING)
    assert told(verified, "tickets") == [
        ("tickets-verify, its verification, is RUNNING: 0 of at most 13 trainings have ended.", None)
    ]
    verified.train_all(plan, drop=0.1)
    verified.end()
    sentence = "verified over 2 seeds: 0.81 ± 0.13, defaults 0.745 ± 0.064"
    assert json_rows(compare(verified.results, ["tickets"]).best)[0]["verified"] == sentence
    first, *others = told(verified, "tickets")
    assert first == (
        "Verified over 2 seeds: 0.81 ± 0.13, defaults 0.745 ± 0.064 (accuracy on the test rows, which no trial saw; "
        "± is half of the 95 % interval of the mean).",
        None,
    )
    assert [text for text, _ in others] == [
        "One more training will fall between 0.59 and 1.03 with a probability of 95 %.",
        "Repeats that differ by their seed alone spread by 0.01414 (standard deviation); the gain over the defaults is "
        "0.07 ± 0.19 over the same seeds, which chance alone may explain.",
        "The search itself said 0.9 of trial 0; with new seeds the same rows give 0.91 ± 0.13.",
        "The race chose the winner on the validation rows: its means are too good for whoever won, and its intervals, "
        "wide enough to hold for all arms at once, are of the race alone.",
    ]
    assert told(verified, "tickets-verify") == [first, *others]
    noted = open_notebook(verified.writer.url)
    assert noted.verification("tickets") == verification_of(verified.results, "tickets")
    page = noted.report("tickets")
    assert "<h2>Verification</h2>" in page and "dropped after 2 seeds" in page


def told(verified: Verified, sweep: str) -> list[tuple[str, str | None]]:
    found = findings(verified.results, sweep, NOTHING)
    return [(one.text, one.advice) for one in found if one.kind is Kind.VERIFICATION]
