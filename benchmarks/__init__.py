"""Measurements against plain loops; see docs/benchmarks.md."""
