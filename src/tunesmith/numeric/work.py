"""What a forward pass costs, added up layer by layer. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Operations of one pass over one item, and elements that the layers pass on (`activations`)."""

    matrix: float = 0.0
    convolution: float = 0.0
    activations: float = 0.0
    widest: float = 0.0  # elements of the largest single layer output

    def __add__(self, other: Work) -> Work:
        return Work(
            self.matrix + other.matrix,
            self.convolution + other.convolution,
            self.activations + other.activations,
            max(self.widest, other.widest),
        )

    def as_operations(self, times: float) -> dict[str, float]:
        """As a PhaseCost's mapping, `times` over."""
        return {"matrix": self.matrix * times, "convolution": self.convolution * times}
