"""How torch multiplies float32 on a GPU: exactly, or in TensorFloat-32. A setting of the process, not of a trial.

In: what trials are told under `tf32`. Out: a process that is as it was before them. It must not know trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import import_utils


def float32_products() -> str:
    """Name how float32 matrices are multiplied now.

    Asked of the setting that transformers writes: where it has written, torch refuses to tell the older one.
    """
    if hasattr(torch.backends, "fp32_precision"):  # torch 2.9
        return f"{torch.backends.fp32_precision}, {torch.backends.cuda.matmul.fp32_precision}"
    return str(torch.get_float32_matmul_precision())


@contextmanager
def restored_products() -> Iterator[None]:
    """Undo in the end what TrainingArguments have set meanwhile, so that the next trial begins as this one did.

    transformers remembers the values that it has set once, and would not set one of them again.
    """
    forget = getattr(getattr(import_utils, "enable_tf32", None), "cache_clear", None)
    if forget is not None:
        forget()
    is_new = hasattr(torch.backends, "fp32_precision")
    before = torch.backends.fp32_precision if is_new else torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        if not is_new:
            torch.backends.cuda.matmul.allow_tf32 = before
        elif torch.backends.fp32_precision != before:
            torch.backends.fp32_precision = before
