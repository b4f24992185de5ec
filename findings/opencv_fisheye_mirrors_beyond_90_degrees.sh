#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.fisheye.projectPoints, an ideal equidistant lens (all k 0, 300
# pixels a radian, centre 320 240), whose picture of a point at the angle a lies at x = 320 + 300 a.
# Behaviour: the function divides by z first, so that a point at more than 90 degrees comes out mirrored, as if it were
# at 180 degrees less the angle on the other side: within the image, without NaN. Lenses of 200 degrees see such points.
# Seen:
#   angle  89.9: x = 790.7, right 790.7
#   angle  95.0: x = -125.1, right 817.4
#   angle 120.0: x = 5.8, right 948.3
#   angle 150.0: x = 162.9, right 1105.4
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

K = np.array([[300.0, 0.0, 320.0], [0.0, 300.0, 240.0], [0.0, 0.0, 1.0]])
changed = False
for degrees in (89.9, 95.0, 120.0, 150.0):
    angle = np.radians(degrees)
    point = np.array([[[np.sin(angle), 0.0, np.cos(angle)]]])
    pixels, _ = cv2.fisheye.projectPoints(point, np.zeros(3), np.zeros(3), K, np.zeros(4))
    x, right = float(pixels[0, 0, 0]), 320 + 300 * angle
    mirrored = 320 - 300 * (np.pi - angle)
    print(f"angle {degrees:5.1f}: x = {x:.1f}, right {right:.1f}")
    changed |= abs(x - (right if degrees < 90 else mirrored)) > 0.01
if changed:
    sys.exit("changed")
EOF
