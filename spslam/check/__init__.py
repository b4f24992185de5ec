"""Examine a recording and its calibration before a run."""
