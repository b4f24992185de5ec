"""The map: keyframes, points and observations; its files, checks and exports."""

from spslam.map.map import NO_POINT, Map

__all__ = ["NO_POINT", "Map"]
