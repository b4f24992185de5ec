#!/usr/bin/env bash
# OpenCV's wheels (opencv-python-headless 4.13.0.92 and 5.0.0.93) and a depth picture in OpenEXR, one float channel, as
# renderers write it (OpenEXR 3.5.3). Both run with OPENCV_IO_ENABLE_OPENEXR=1, the switch that every guide names.
# Behaviour: the wheel of 4.13 has OpenEXR built in and reads the depth. The wheel of 5.0 has none: imread gives None, as
# for a file that is no picture, and the switch changes nothing.
# Seen:
#   4.13.0: float32 (48, 64), largest 2.0
#   5.0.0: None
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 4.13.0.92 5.0.0.93; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 OpenEXR==3.5.3 "opencv-python-headless==$version"
done
"venv-5.0.0.93/bin/python" - <<'EOF'
import numpy as np
import OpenEXR

depth = np.linspace(1.0, 2.0, 64 * 48, dtype=np.float32).reshape(48, 64)
header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
OpenEXR.File(header, {"Y": depth}).write("depth.exr")
EOF
export OPENCV_IO_ENABLE_OPENEXR=1
for version in 4.13.0.92 5.0.0.93; do
    "venv-$version/bin/python" - 2>/dev/null <<'EOF' | tee -a seen
import cv2

depth = cv2.imread("depth.exr", cv2.IMREAD_UNCHANGED)
found = None if depth is None else f"{depth.dtype} {depth.shape}, largest {depth.max()}"
print(f"{cv2.__version__}: {found}")
EOF
done
diff seen - <<'EOF' >/dev/null || { echo changed; exit 1; }
4.13.0: float32 (48, 64), largest 2.0
5.0.0: None
EOF
