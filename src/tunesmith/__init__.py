"""tunesmith teaches generative models what you make."""

__version__ = "0.1.0"
