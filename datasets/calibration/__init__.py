"""Calibration files and rectification."""
