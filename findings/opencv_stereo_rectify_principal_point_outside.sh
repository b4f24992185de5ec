#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.stereoRectify with alpha = 0, two equal parallel cameras with some
# barrel distortion; once the whole image of 640x480, once the rows 245 to 480 of the same images, for which the
# principal point lies above the image (cy = -8.6).
# Behaviour: the view of the cut images, "only valid pixels", has five times the focal length of that of the whole
# images, though these are the same pixels of the same lens. Without distortion the focal length stays.
# Seen: lens 460 px; rectified whole images 423 px, cut images 2251 px; cut images without distortion 460 px.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import cv2
import numpy as np


def focal(rows, cy, distortion):
    K = np.array([[460.0, 0.0, 319.5], [0.0, 460.0, cy], [0.0, 0.0, 1.0]])
    baseline = np.array([[-0.11], [0.0], [0.0]])
    size = (640, rows)
    found = cv2.stereoRectify(
        K, distortion, K, distortion, size, np.eye(3), baseline, flags=cv2.CALIB_ZERO_DISPARITY, alpha=0
    )
    return found[2][0, 0]


lens = np.array([-0.28, 0.07, 0.0002, 0.00002])
whole, cut, ideal = focal(480, 236.4, lens), focal(235, -8.6, lens), focal(235, -8.6, np.zeros(4))
print(f"whole {whole:.0f} px, cut {cut:.0f} px, cut without distortion {ideal:.0f} px")
if cut < 2 * whole or ideal > 1.2 * 460:
    sys.exit("changed")
EOF
