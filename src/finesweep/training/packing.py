"""How plain texts become blocks of equal length, so that no token is lost and none is learnt twice.

In: texts, a tokenizer. Out: blocks of token ids with their labels. It must not know files or trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from finesweep.training.encoding import IGNORED, Encoded, Tokenizer, chunks


def pack(tokenizer: Tokenizer, texts: Sequence[str], *, max_length: int, most_blocks: int | None = None) -> Encoded:
    """Join texts, an end-of-text token after each, and cut what results into blocks; the last one may be shorter.

    A model learns nothing from the first token of a block, since nothing stands before it there. So each block begins
    with the last token of the one before, which bears no loss, and the first with an end-of-text token. The labels of
    the blocks, put together, are the tokens of the texts: each once. A token sees those before it in its block, which
    may be of another text.
    """
    n_new = max_length - 1  # tokens of a block that were in none before
    tokens = _tokens(tokenizer, texts, most=None if most_blocks is None else most_blocks * n_new)
    before = np.concatenate([np.array([tokenizer.eos_token_id], dtype=np.int32), tokens])
    blocks = [before[start : start + max_length] for start in range(0, len(tokens), n_new)]
    labels = [block.copy() for block in blocks]
    for block in labels:
        block[0] = IGNORED
    return Encoded(pa.table({"input_ids": _lists(blocks), "labels": _lists(labels)}))


def _tokens(tokenizer: Tokenizer, texts: Sequence[str], *, most: int | None) -> np.ndarray:
    """Tokenise texts until there are enough tokens."""
    end = tokenizer.eos_token_id
    parts: list[np.ndarray] = []
    n = 0
    for chunk in chunks(len(texts)):
        for ids in tokenizer(list(texts[chunk]), return_attention_mask=False)["input_ids"]:
            ended = ids if ids[-1:] == [end] else [*ids, end]  # some tokenizers end every text by themselves
            parts.append(np.array(ended, dtype=np.int32))
            n += len(ended)
        if most is not None and n >= most:
            break
    return np.concatenate(parts)[:most]


def _lists(blocks: Sequence[np.ndarray]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, blocks)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(blocks)))
