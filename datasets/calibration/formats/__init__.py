"""Calibration files of other programs: one module a program, each with its reader and writer."""
