"""Synthetic shapes with labelled junctions."""

from .drawing import PRIMITIVES, contact_sheet, draw_shape

__all__ = ["PRIMITIVES", "contact_sheet", "draw_shape"]
