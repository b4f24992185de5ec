"""Layouts of datasets as tables (YAML), and the reader for all of them."""
