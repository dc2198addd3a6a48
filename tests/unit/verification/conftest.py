"""A plan of three arms with names that say what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finesweep.verification.plan import Arm, VerificationPlan

Plans = Callable[..., VerificationPlan]


@pytest.fixture
def make_plan() -> Plans:
    """Make a plan: `arms` are letters, `baseline` is one, or one for each arm."""

    def make(
        arms: str = "abc", *, race_seeds: int = 3, seeds: int = 2, baseline: str | None = "z", **fields: Any
    ) -> VerificationPlan:
        listed = tuple(
            Arm(label=f"trial {n}", trial=n, configuration={"arm": letter}, search_value=0.9 - n / 100)
            for n, letter in enumerate(arms)
        )
        letters = [None] * len(arms) if baseline is None else list(baseline) * (len(arms) // len(baseline))
        n_race = race_seeds if len(arms) > 1 else 0
        content = {
            "of": "tickets",
            "created_at": "",
            "arms": listed,
            "baselines": [letter and Arm(label="defaults", configuration={"arm": letter}) for letter in letters],
            "race_seeds": range(10, 10 + n_race),
            "seeds": range(20, 20 + seeds),
        }
        return VerificationPlan.model_validate(content | fields)

    return make
