#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.fisheye.stereoRectify, two equal parallel cameras, 848x800, of
# nearly 180 degrees (k as a tracking camera's factory gives them), centred to the half pixel: by symmetry the
# rectified principal point is the centre, (423.5, 399.5), whatever the focal length.
# Behaviour: x of the new principal point moves off the centre with the focal length and may lie thousands of pixels
# outside of the image; the new focal length jumps as well. No error is raised.
# The cause: the middles of the image's borders are undistorted first, and these lie near 90 degrees, where the
# pinhole's coordinates go to infinity.
# Seen, balance 0, focal length before -> focal length and principal point x after:
#   275 px -> 66.8 px, x = 422.7
#   285 px -> 34.9 px, x = 416.3
#   295 px -> 59.7 px, x = -4498.4
#   305 px -> 86.9 px, x = 408.2
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

SIZE, CENTRE = (848, 800), (423.5, 399.5)
k = np.array([-0.007, 0.046, -0.044, 0.0085])
baseline = np.array([-0.064, 0.0, 0.0])
off = []
for focal in (275.0, 285.0, 295.0, 305.0):
    K = np.array([[focal, 0.0, CENTRE[0]], [0.0, focal, CENTRE[1]], [0.0, 0.0, 1.0]])
    _, _, P, _, _ = cv2.fisheye.stereoRectify(
        K, k, K, k, SIZE, np.eye(3), baseline, 0, newImageSize=SIZE, balance=0.0, fov_scale=1.0
    )
    off.append(abs(P[0, 2] - CENTRE[0]))
    print(f"{focal:.0f} px -> {P[0, 0]:.1f} px, x = {P[0, 2]:.1f}")
if max(off) < 0.1 * SIZE[0]:
    sys.exit("changed")
EOF
