"""Shared code of the benchmarks, and the programs that they run as processes."""
