"""A new byte-pair tokenizer in CLIP's file format, learnt from texts. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tunesmith.engines.stable_diffusion.tokenizer import (
    END,
    START,
    byte_characters,
    pre_tokenizer,
    text_normalizer,
    write_tokenizer_files,
)


def learn_tokenizer(texts: Iterable[str], folder: Path, *, tokens: int) -> Path:
    """Write vocab.json and merges.txt of at most `tokens` tokens into `folder`, in CLIP's order.

    All 256 bytes come first, alone and at the end of a word, so that any text has ids; then the merges that shorten
    `texts` most; then the two specials. A function of the texts.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    characters = byte_characters()
    fixed = [*characters, *(character + "</w>" for character in characters)]
    if tokens < len(fixed) + 2:
        raise ValueError(f"{tokens} tokens; the bytes and specials alone are {len(fixed) + 2}")
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = text_normalizer(), pre_tokenizer()
    # The learner counts single characters of its own alphabet within its size; ours are counted apart.
    trainer = BpeTrainer(
        vocab_size=tokens + len(fixed), end_of_word_suffix="</w>", initial_alphabet=characters, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][: tokens - len(fixed) - 2]
    vocabulary = {token: at for at, token in enumerate([*fixed, *("".join(pair) for pair in merges), START, END])}
    write_tokenizer_files(folder, vocabulary, [f"{left} {right}" for left, right in merges])
    return folder
