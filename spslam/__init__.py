"""Visual SLAM with a SuperPoint front end.

>>> from spslam import Slam, open_sequence
>>> slam = Slam.from_config("kitti_stereo")
>>> for frame in open_sequence("/data/kitti", sequence="00"):
...     result = slam.track(frame)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spslam.camera import Camera as Camera
    from spslam.config import load_config as load_config
    from spslam.datasets import open_sequence as open_sequence
    from spslam.errors import SpslamError as SpslamError
    from spslam.frame import Features as Features
    from spslam.frame import Frame as Frame
    from spslam.slam.system import Slam as Slam
    from spslam.trajectory import Trajectory as Trajectory

# In a clone without symbolic links and in an unpacked source archive, frontend, backend, datasets
# and configs are only beside this folder.
if not Path(__path__[0], "frontend").is_dir():
    __path__.append(str(Path(__path__[0]).parent))

__version__ = "0.1.0"
# Public names and their modules. They are imported at first use, so `import spslam` stays fast.
_EXPORTS = {
    "Camera": "spslam.camera",
    "Features": "spslam.frame",
    "Frame": "spslam.frame",
    "Slam": "spslam.slam.system",
    "SpslamError": "spslam.errors",
    "Trajectory": "spslam.trajectory",
    "load_config": "spslam.config",
    "open_sequence": "spslam.datasets",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'spslam' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
