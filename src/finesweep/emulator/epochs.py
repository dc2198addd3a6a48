"""The weights of a job after each of its epochs: the protocol offers the last of them beside the tuned model.

In: a training that goes on, how many examples it has seen. Out: model folders. It must not know the server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


class KeepsEpochs(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Writes a model folder at the first report at or after each epoch's end, but the last; tells which there are.

    In half the precision that the training has: they are there to be asked, not to be trained on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        n_rows: int,
        n_epochs: int,
        seen: Callable[[], int],
        tokenizer: Any,
        tell: Callable[[int, Path], None],
    ) -> None:
        """`seen` gives the examples seen at the last report; `tell` hears of a step and its folder."""
        self._folder, self._n_rows, self._n_epochs, self._seen = folder, n_rows, n_epochs, seen
        self._tokenizer, self._tell = tokenizer, tell
        folder.mkdir(parents=True, exist_ok=True)
        self._epoch = max((int(path.stem) for path in folder.glob("*.told")), default=0)  # before it was interrupted

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        epoch = self._seen() // self._n_rows
        if not self._epoch < epoch < self._n_epochs:
            return
        self._epoch = epoch
        path = self._folder / str(epoch)
        weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
        model.save_pretrained(path, state_dict=weights)
        self._tokenizer.save_pretrained(path)
        self._tell(state.global_step, path)
        path.with_suffix(".told").touch()
