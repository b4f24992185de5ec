#!/usr/bin/env bash
# pyrealsense2 2.59.1.11053 (librealsense 2.59.1), rs2_project_point_to_pixel and rs2_deproject_pixel_to_point.
# Behaviour: of an `intrinsics` with the model modified_brown_conrady, the projection uses the coefficients, and the
# deprojection ignores them: a pixel that is deprojected and projected again comes out pixels away. With
# inverse_brown_conrady, the model of the colour cameras, the two are inverse, but the projection is that of
# modified_brown_conrady: coefficients that are applied as the name says, from distorted to undistorted, bend the wrong
# way.
# Seen, the pixel (600, 450) of a 640x480 image (f = 380), deprojected and projected again; then the same ray projected
# by each model:
#   modified_brown_conrady: 596.68 447.28
#   inverse_brown_conrady: 600.00 450.00
#   projections of one ray: modified 596.68 447.28, inverse 596.68 447.28
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyrealsense2==2.59.1.11053
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import pyrealsense2 as rs

PIXEL = [600.0, 450.0]
lens = rs.intrinsics()
lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy = 640, 480, 380, 380, 320, 240
lens.coeffs = [-0.055, 0.065, -0.0005, 0.0003, -0.02]
again, projected = {}, {}
for name in ("modified_brown_conrady", "inverse_brown_conrady"):
    lens.model = getattr(rs.distortion, name)
    again[name] = rs.rs2_project_point_to_pixel(
        lens, rs.rs2_deproject_pixel_to_point(lens, PIXEL, 1.0)
    )
    projected[name] = rs.rs2_project_point_to_pixel(lens, [280 / 380, 210 / 380, 1.0])
    print(f"{name}: {again[name][0]:.2f} {again[name][1]:.2f}")
modified, inverse = projected.values()
print("projections of one ray: modified {:.2f} {:.2f}, inverse {:.2f} {:.2f}".format(*modified, *inverse))
lost = abs(again["modified_brown_conrady"][0] - PIXEL[0]) > 1
kept = abs(again["inverse_brown_conrady"][0] - PIXEL[0]) < 0.01
sys.exit(0 if lost and kept and modified == inverse else 1)
EOF
