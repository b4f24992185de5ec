"""Write the networks for other programs, as a release attaches them: make models.

python tools/make_models.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from spslam.cli.app import main

# Files and the options of `spslam export` that make them. Hosts of a fixed length get the network
# that fits; the others get both.
MODELS: dict[str, tuple[str, ...]] = {
    "superpoint_lite.onnx": ("--to", "onnx"),
    "superpoint_lite_points.onnx": ("--to", "onnx", "--end-to-end"),
    "superpoint_lite_nchw.onnx": ("--to", "onnx", "--layout", "nchw"),
    "superpoint_lite_nchw_fp16.onnx": ("--to", "onnx", "--layout", "nchw", "--precision", "fp16"),
    "superpoint_lite_opencv_disk_fp16.onnx": ("--to", "opencv-disk", "--precision", "fp16"),
    "superpoint_lite_opencv_aliked_fp16.onnx": ("--to", "opencv-aliked", "--precision", "fp16"),
    "superpoint_lite_colmap_fp16.onnx": ("--to", "colmap", "--precision", "fp16"),
    "superpoint_lite_lightglue_onnx_fp16.onnx": ("--to", "lightglue-onnx", "--precision", "fp16"),
    "superpoint_lite.pt": ("--to", "torchscript"),
    "superpoint.onnx": ("--to", "onnx"),
    "superpoint.pt": ("--to", "torchscript"),
}


def make_models(folder: Path) -> list[Path]:
    """Write all models; a failed export ends the program with its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, options in MODELS.items():
        weights = "superpoint_lite" if file.startswith("superpoint_lite") else "superpoint"
        path = folder / file
        try:
            main(["export", weights, *options, "--out", str(path)])
        except SystemExit as end:
            if end.code:
                raise
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path in make_models(Path(sys.argv[1])):
        print(f"{path.stat().st_size / 1e6:5.2f} MB {path}")
