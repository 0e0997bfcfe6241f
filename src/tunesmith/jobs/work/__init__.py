"""The work itself: what every executor starts. The one part of `jobs` that imports torch."""

from tunesmith.jobs.work.entry import work
from tunesmith.jobs.work.probe import Probe, probe_steps

__all__ = ["Probe", "probe_steps", "work"]
