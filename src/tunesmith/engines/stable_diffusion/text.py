"""Captions into text states: chunks of 75 tokens, encoded apart and joined."""

from __future__ import annotations

import torch
from torch import nn


def text_states(encoder: nn.Module, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """States [batch, tokens, width] of token ids [batch, 77] or [batch, chunks, 77].

    `clip_skip` N takes the states after the N-th layer from the end and applies the final layer norm. Of several
    chunks the inner starts and ends are dropped: 3 chunks of 77 become 227 states, as SD 1.x trainers do.
    """
    chunks = ids.reshape(ids.shape[0], -1, ids.shape[-1])
    states = _encode(encoder, chunks.flatten(0, 1), clip_skip)
    return join_chunks(states.reshape(*chunks.shape, states.shape[-1]))


def join_chunks(states: torch.Tensor) -> torch.Tensor:
    """[batch, chunks, 77, width] -> [batch, 75 * chunks + 2, width]: first start, all inner states, last end."""
    inner = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], inner, states[:, -1, -1:]], dim=1)


def _encode(encoder: nn.Module, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    ids = ids.to(next(encoder.parameters()).device)
    if clip_skip == 1:
        states: torch.Tensor = encoder(input_ids=ids).last_hidden_state
        return states
    hidden = encoder(input_ids=ids, output_hidden_states=True).hidden_states
    normed: torch.Tensor = encoder.get_submodule("final_layer_norm")(hidden[-clip_skip])
    return normed
