"""A tokenizer learnt here, against transformers' own reader of its files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.open import tokenizer_folder
from tunesmith.engines.stable_diffusion.tokenizer import (
    END,
    START,
    is_shipped,
    open_tokenizer,
    token_ids,
    write_tokenizer,
)
from tunesmith.engines.stable_diffusion.vocabulary import learn_tokenizer
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.monsters import caption, random_monster

TOKENS = 600


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [caption(random_monster(random.Random(index))) for index in range(300)]


@pytest.fixture(scope="module")
def learnt(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), tokens=TOKENS)


def test_transformers_reads_the_same_tokens(texts: list[str], learnt: Path) -> None:
    from transformers import CLIPTokenizer

    theirs, ours = CLIPTokenizer.from_pretrained(str(learnt)), open_tokenizer(learnt)
    assert len(theirs) == ours.get_vocab_size() == TOKENS
    for text in [*texts[:50], "zorbli monster", "  Two   SPACES ", "Ünïcode ☃ 12, it's", ""]:
        assert theirs(text)["input_ids"] == [ours.token_to_id(START), *token_ids(ours, text), ours.token_to_id(END)]


def test_words_of_the_texts_become_one_token(learnt: Path) -> None:
    tokens = open_tokenizer(learnt)
    assert len(token_ids(tokens, "monster")) == 1
    assert 1 < len(token_ids(tokens, "zorbli")) <= 6


def test_it_is_a_function_of_the_texts(texts: list[str], learnt: Path, tmp_path: Path) -> None:
    again = learn_tokenizer(texts, tmp_path / "again", tokens=TOKENS)
    for name in ("vocab.json", "merges.txt"):
        assert (again / name).read_bytes() == (learnt / name).read_bytes()
    with pytest.raises(ValueError, match="514"):
        learn_tokenizer(texts, tmp_path / "small", tokens=100)


def test_a_bases_own_tokenizer_is_told_from_the_shipped_one(learnt: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "shipped")
    assert is_shipped(tmp_path / "shipped")
    assert not is_shipped(learnt)
    named = BaseSection(architecture="tiny32", parts={"tokenizer": str(learnt)})
    assert tokenizer_folder(named) == learnt
    assert engine.open(named).parts["tokenizer"].path == learnt
    same = BaseSection(architecture="tiny32", parts={"tokenizer": str(tmp_path / "shipped")})
    assert "tokenizer" not in engine.open(same).parts
    with pytest.raises(WeightsError, match="is no tokenizer"):
        engine.open(BaseSection(architecture="tiny32", parts={"tokenizer": str(tmp_path)}))


def test_one_file_has_no_room_for_a_tokenizer(learnt: Path, tmp_path: Path) -> None:
    base = engine.open(BaseSection(architecture="tiny32", parts={"tokenizer": str(learnt)}))
    with pytest.raises(WeightsError, match=r"one file has no room for.*layout diffusers"):
        engine.write_base(base, {}, tmp_path / "x.safetensors", "single_file", "fp32")
    written = engine.write_base(base, {}, tmp_path / "folder", "diffusers", "fp32")
    assert tokenizer_folder(BaseSection(path=str(written))) == written / "tokenizer"
    assert engine.open(BaseSection(path=str(written))).parts["tokenizer"].path == written / "tokenizer"
