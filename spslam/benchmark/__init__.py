"""Benchmark suites, their tables, and speed measurements."""
