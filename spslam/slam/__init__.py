"""The SLAM system: tracking, mapping, loop closing. `Slam` is the whole of it."""

from spslam.slam.system import Slam

__all__ = ["Slam"]
