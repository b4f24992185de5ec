#!/usr/bin/env bash
# GTSAM 4.3.0 and g2opy 2.3.0 (g2o's own wheel) read one EDGE_SE3:QUAT with the identity as its information.
# Behaviour: a rotation off by 0.1 rad costs four times as much in GTSAM as in g2o, which measures rotations by the
# vector part of the quaternion (half the angle), while the file has one information matrix for both. A shift costs
# the same in both. A graph that is balanced for one is not for the other.
# Seen:
#   rotated by 0.1 rad: g2o 0.0025, gtsam 0.0100, ratio 4.00
#   shifted by 0.1 m:   g2o 0.0100, gtsam 0.0100, ratio 1.00
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gtsam==4.3.0 g2opy==2.3.0
cd "$folder"
venv/bin/python - <<'EOF'
import math
import sys

import g2opy
import gtsam

IDENTITY = " ".join("1" if i == j else "0" for i in range(6) for j in range(i, 6))


def costs(pose):
    """Of an edge that says "one metre ahead, not turned", for a second node at `pose` (x y z qx qy qz qw)."""
    with open("graph.g2o", "w") as file:
        file.write("VERTEX_SE3:QUAT 0 0 0 0 0 0 0 1\n")
        file.write(f"VERTEX_SE3:QUAT 1 {pose}\n")
        file.write(f"EDGE_SE3:QUAT 0 1 1 0 0 0 0 0 1 {IDENTITY}\n")
    optimizer = g2opy.SparseOptimizer()
    optimizer.load("graph.g2o")
    (edge,) = optimizer.edges()
    edge.compute_error()
    graph, values = gtsam.readG2o("graph.g2o", True)
    # GTSAM's error is half of the squared residual.
    return edge.chi2(), 2 * graph.error(values)


turned = costs(f"1 0 0 0 0 {math.sin(0.05):.17g} {math.cos(0.05):.17g}")
shifted = costs("1.1 0 0 0 0 0 1")
ratios = turned[1] / turned[0], shifted[1] / shifted[0]
print(f"rotated by 0.1 rad: g2o {turned[0]:.4f}, gtsam {turned[1]:.4f}, ratio {ratios[0]:.2f}")
print(f"shifted by 0.1 m:   g2o {shifted[0]:.4f}, gtsam {shifted[1]:.4f}, ratio {ratios[1]:.2f}")
if not (abs(ratios[0] - 4) < 0.02 and abs(ratios[1] - 1) < 1e-6):
    sys.exit("changed")
EOF
