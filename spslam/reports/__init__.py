"""Plots and HTML reports of results."""
