"""Stable Audio Open: latent diffusion of sounds from captions. Importing this does not import torch."""

from tunesmith.engines.stable_audio.engine import engine

__all__ = ["engine"]
