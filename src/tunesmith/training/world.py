"""World: the processes that train together. One process is `World()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes. `reduce` sums a tensor over all of them, in place, and returns it."""

    rank: int = 0
    size: int = 1
    reduce: Callable[[torch.Tensor], torch.Tensor] = _alone

    def share(self, count: int) -> slice:
        """This rank's slice of `count` items; the slices of all ranks cover them once, in order."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so: how stopping is agreed."""
        return flag if self.size == 1 else bool(self.reduce(torch.tensor(float(flag))) > 0)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in place; a missing one counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        whole = self.reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(whole, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def world_from_environment(environ: Mapping[str, str], device: torch.device) -> World:
    """The world that `torchrun` set up (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or one process alone."""
    size = int(environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    import torch.distributed as distributed

    rank = int(environ["RANK"])
    address = f"tcp://{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=address, rank=rank, world_size=size)

    def reduce(tensor: torch.Tensor) -> torch.Tensor:
        distributed.all_reduce(tensor)
        return tensor

    return World(rank, size, reduce)
