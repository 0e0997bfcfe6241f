"""The T5 tokenizer of a base: ids, padding, and a new one learnt from texts. No torch.

Source of the rules: T5 (Raffel et al., 2020, arXiv 1910.10683): a unigram vocabulary, pad 0, end 1, unknown 2.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
USUAL_TOKENS = 128
_RARE = 3  # words seen no more often are spelled in parts
GENERIC_CLASS = "PreTrainedTokenizerFast"
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` holds tokenizer files."""
    return (folder / TOKENIZER_FILE).is_file()


def max_tokens_of(folder: Path | None) -> int:
    """How many tokens a prompt is padded and cut to: what the folder's config says, else 128 as Stable Audio Open."""
    file = folder / CONFIG_FILE if folder is not None else None
    if file is None or not file.is_file():
        return USUAL_TOKENS
    try:
        stated = json.loads(file.read_text(encoding="utf-8")).get("model_max_length", USUAL_TOKENS)
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file} cannot be read: {error}", expected="JSON", do="restore the file") from error
    # T5's own config states 512, and libraries write 1e30 for "no limit"; the model was trained with 128.
    return int(stated) if isinstance(stated, int) and 0 < stated <= 512 else USUAL_TOKENS


def class_of(folder: Path) -> str:
    """The transformers class that a tokenizer folder names."""
    file = folder / CONFIG_FILE
    stated = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
    return stated if isinstance(stated, str) else GENERIC_CLASS


@lru_cache(maxsize=8)
def open_tokenizer(folder: Path | None, max_tokens: int) -> Tokenizer:
    """The tokenizer in `folder`, cutting and padding to `max_tokens`. Cached; treat as read-only."""
    from tokenizers import Tokenizer

    if folder is None:
        raise WeightsError(
            "the base has no tokenizer",
            expected=f"a folder with {TOKENIZER_FILE}",
            do="name one in base.parts.tokenizer",
        )
    file = folder / TOKENIZER_FILE
    try:
        json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} is no tokenizer: {error}", expected="a tokenizer.json of T5") from error
    tokenizer = Tokenizer.from_file(str(file))
    pad = tokenizer.token_to_id(PAD)
    if pad is None or tokenizer.token_to_id(END) is None:
        raise WeightsError(f"{file} has no {PAD} or {END}", expected="a tokenizer of T5")
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.enable_padding(length=max_tokens, pad_id=pad, pad_token=PAD)
    return tokenizer


def token_ids(tokenizer: Any, text: str) -> tuple[list[int], int]:
    """(ids padded to the tokenizer's length, how many of them are the text's own, its end included)."""
    encoded = tokenizer.encode(text)
    return list(encoded.ids), sum(encoded.attention_mask)


def learn_tokenizer(texts: Iterable[str], folder: Path, *, tokens: int, max_tokens: int) -> Path:
    """Write a unigram tokenizer of at most `tokens` pieces into `folder`, as T5Tokenizer reads it; no text is unknown.

    Pieces are whole words, then parts of the rarer words, then single characters and bytes, so that any text has ids.
    A function of the texts: the library's own trainer gives other pieces at every run.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    tokenizer = Tokenizer(Unigram(_pieces(texts, tokens), unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    write_config(folder, max_tokens)
    return folder


def _pieces(texts: Iterable[str], tokens: int) -> list[tuple[str, float]]:
    """(piece, log of its share) for a unigram vocabulary: the specials first, the most useful pieces, the fallbacks."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(f"\u2581{word}" for word in re.findall(r"\w+", text))
    fallbacks = [chr(code) for code in range(33, 127)] + ["\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    room = tokens - 3 - len(fallbacks)
    if room < 0:
        raise ValueError(f"{tokens} tokens; the specials, characters and bytes alone are {tokens - room}")
    whole = sorted((word for word in words if words[word] > _RARE), key=lambda word: (-words[word], word))
    kept = {word: float(words[word]) for word in whole[: max(0, room - room // 4)]}
    parts: Counter[str] = Counter()
    for word, count in words.items():
        if word not in kept:
            for size in range(2, 6):
                for start in range(len(word) - size + 1):
                    parts[word[start : start + size]] += count
    # What a part saves is its letters less one, as often as it occurs.
    useful = sorted(parts, key=lambda part: (-parts[part] * (len(part) - 1), part))
    kept |= {part: float(parts[part]) for part in useful[: room - len(kept)] if part not in fallbacks}
    total = sum(kept.values()) or 1.0
    scored = [(piece, math.log(count / total)) for piece, count in kept.items()]
    lowest = min((score for _, score in scored), default=0.0)
    plain = [(piece, lowest - (20.0 if piece.startswith("<0x") else 5.0)) for piece in fallbacks]
    return [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), *scored, *plain]


def write_config(folder: Path, max_tokens: int) -> None:
    """The small file that tells libraries how to read tokenizer.json.

    Not as T5Tokenizer, which builds the tokenizer anew from its pieces and forgets that bytes stand in for the unknown.
    """
    config = {
        "tokenizer_class": GENERIC_CLASS,
        "model_max_length": max_tokens,
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
