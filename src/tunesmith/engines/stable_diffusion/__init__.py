"""Stable Diffusion 1.x. Importing this does not import torch."""

from tunesmith.engines.stable_diffusion.engine import engine

__all__ = ["engine"]
