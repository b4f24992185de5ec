"""The map: keyframes, points and observations, and what is made of them."""

from spslam.map.map import NO_POINT, Ids, Map

__all__ = ["NO_POINT", "Ids", "Map"]
