"""A trial's way to multiply float32 ends with the trial."""

from __future__ import annotations

import pytest
import torch
from transformers.utils.import_utils import enable_tf32

from finesweep.training.precision import float32_products, restored_products

pytestmark = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")


def test_what_a_trial_sets_holds_until_its_end_and_no_longer() -> None:
    """Also the same setting once more, which transformers takes for set already."""
    before = torch.backends.fp32_precision, float32_products()
    for _ in range(2):
        with restored_products():
            enable_tf32(True)
            assert torch.backends.fp32_precision == "tf32"
            assert float32_products() != before[1]
        assert (torch.backends.fp32_precision, float32_products()) == before


def test_a_trial_that_fails_leaves_nothing_either() -> None:
    before = float32_products()
    with pytest.raises(RuntimeError, match="as planned"), restored_products():
        enable_tf32(True)
        raise RuntimeError("as planned")
    assert float32_products() == before
