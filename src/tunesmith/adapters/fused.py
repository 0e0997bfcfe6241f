"""Adapters of layers that a file keeps as one: queries, keys and values stacked in a single matrix.

Layers of one input with weights W1, W2, … are fused as the rows [W1; W2; …]. A change (up, down) of the fused layer is
the changes (rows i of up, down) of its members, exactly. The other way members with factors of their own become
block-diagonal: down stacked, up with each member's block in its own rows, the rank the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunesmith.adapters.adapter import Pair
from tunesmith.errors import AdapterError


def split_pair(name: str, pair: Pair, parts: int) -> tuple[Pair, ...]:
    """The members' pairs of a fused layer of `parts` equal row ranges. Raises AdapterError where rows do not divide."""
    rows = pair.up.shape[0]
    if rows % parts:
        raise AdapterError(
            f"{name} changes {rows} rows, which are not {parts} equal parts",
            expected="a LoRA for this engine and base",
            do="choose the base that the LoRA was trained on",
        )
    ups = pair.up.chunk(parts, dim=0)
    magnitudes = (None,) * parts if pair.magnitude is None else pair.magnitude.flatten().chunk(parts)
    return tuple(
        Pair(pair.down, up.clone(), pair.alpha, None if magnitude is None else magnitude.clone())
        for up, magnitude in zip(ups, magnitudes, strict=True)
    )


def join_pairs(name: str, members: Sequence[Pair | None]) -> Pair:
    """One pair for the fused layer; a member without a pair stays unchanged.

    Members that share one `down` keep their rank; others are laid out in blocks and alpha becomes the sum of ranks
    times their common alpha / rank. Raises AdapterError where nothing tells the rows, or DoRA is on some members only.
    """
    present = [pair for pair in members if pair is not None]
    rows = {pair.up.shape[0] for pair in present}
    if len(rows) != 1:
        raise AdapterError(f"the layers fused in {name} have {sorted(rows)} rows", expected="as many rows each")
    if len({pair.magnitude is None for pair in present}) > 1 or (
        present[0].magnitude is not None and len(present) < len(members)
    ):
        raise AdapterError(
            f"some layers fused in {name} are DoRA and some are not", expected="all or none", do="use layout peft"
        )
    first = present[0]
    if len(present) == len(members) and all(_shares(first, pair) for pair in present[1:]):
        return Pair(first.down, torch.cat([pair.up for pair in present]), first.alpha, _magnitudes(present))
    scale = first.scale
    rank = sum(pair.rank for pair in present)
    up = torch.zeros(rows.pop() * len(members), rank, dtype=first.up.dtype)
    column = 0
    for index, pair in enumerate(members):
        if pair is not None:
            block = pair.up if pair.scale == scale else pair.up.float() * (pair.scale / scale)
            high = pair.up.shape[0]
            up[index * high : (index + 1) * high, column : column + pair.rank] = block
            column += pair.rank
    return Pair(torch.cat([pair.down for pair in present]), up, scale * rank, _magnitudes(present))


def _shares(one: Pair, other: Pair) -> bool:
    return one.alpha == other.alpha and torch.equal(one.down, other.down)


def _magnitudes(pairs: Sequence[Pair]) -> torch.Tensor | None:
    found = [pair.magnitude.flatten() for pair in pairs if pair.magnitude is not None]
    return torch.cat(found) if found else None
