"""Suites of runs, their tables, and timing."""
