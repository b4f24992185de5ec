"""Benchmark suites: many runs from one YAML file, their results as one table, and two tables against each other."""
