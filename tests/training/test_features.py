"""A trial on stored features gives what it gives without them."""

from __future__ import annotations
from typing import Any
import pytest


def test_first(bench: Any, make_spec: Any) -> None:
    for layers in (0, 1, 2):
        trial = {"batch_size": 8, "epochs": 3, "learning_rate": 1e-2}
        cached = bench(method="feature-extraction", unfrozen_layers=layers)
        spec = make_spec(method="feature-extraction", unfrozen_layers=layers)
        off = spec.resources.model_copy(update={"feature_cache_gib": 0.0})
        plain = bench(spec=spec.model_copy(update={"resources": off}))
        _, one = cached.run(number=1, **trial)
        _, other = plain.run(number=2, **trial)
        print(one.facts, other.facts)
        assert one.facts["features"] == "cached"
        for a, b in zip(one.reports, other.reports, strict=True):
            assert a.metrics == pytest.approx(b.metrics, abs=1e-5), layers
