#!/usr/bin/env bash
# pycolmap 4.2.1, `Camera.cam_from_img`, pixels of wide lenses: a pixel whose ray is more than 90 degrees off the optical
# axis has no place in front of the camera. Three models, three answers; only EUCM says so.
# Seen for pixels at x = 400 + 200 r, row 400, principal point (400, 400), focal length 200:
#   OPENCV_FISHEYE, k = 0, r = 2 (114.6 degrees): (2, 0), the pixel itself as if there were no distortion; r = 1.5 (86
#     degrees) gives tan 1.5 = 14.1. `img_from_cam` of (2, 0, 1) is another pixel, 621.4, not 800.
#   FOV, w = 1.4, r = 1.2: x = -5.4, the ray mirrored through the camera; its pixel is 191.2, left of the centre.
#   EUCM, α = 0.6, β = 1.1, r = 1.6: NaN.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pycolmap==4.2.1
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import numpy as np
import pycolmap

found = {}
for model, coefficients, radius in (
    ("OPENCV_FISHEYE", (0, 0, 0, 0), 2.0),
    ("FOV", (1.4,), 1.2),
    ("EUCM", (0.6, 1.1), 1.6),
):
    params = (200, 200, 400, 400, *coefficients)
    camera = pycolmap.Camera(model=model, width=800, height=800, params=params)
    place = camera.cam_from_img(np.array([[400 + 200 * radius, 400.0]]))[0]
    again = camera.img_from_cam(np.array([[place[0], place[1], 1.0]]))[0]
    found[model] = place[0]
    print(f"{model}: pixel x {400 + 200 * radius:.0f} -> {place[0]:.2f} -> pixel x {again[0]:.1f}")
same = abs(found["OPENCV_FISHEYE"] - 2.0) < 1e-6 and found["FOV"] < -1 and np.isnan(found["EUCM"])
if not same:
    sys.exit("changed")
EOF
