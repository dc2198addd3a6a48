"""A small tokenizer of the kind that generative models have: bytes, merges, words with their space before them."""

from __future__ import annotations

from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

START, END = "<|im_start|>", "<|im_end|>"
TEXT = ["the assistant of a user, the system\n", "hello there, how are you today?\n\n", "I am well. And you?  "]


def make_tokenizer(**options: Any) -> transformers.PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options_of_training = {"vocab_size": 340, "special_tokens": [START, END], "show_progress": False}
    backend.train_from_iterator(TEXT * 4, trainers.BpeTrainer(initial_alphabet=alphabet, **options_of_training))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=START, eos_token=END, **options)
