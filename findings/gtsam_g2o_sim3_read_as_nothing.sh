#!/usr/bin/env bash
# GTSAM 4.3.0 reads a Sim(3) pose graph that g2opy 2.3.0 wrote.
# Behaviour: readG2o returns an empty graph and no values, without an exception: lines of kinds that it does not know
# (VERTEX_SIM3:EXPMAP, EDGE_SIM3:EXPMAP) are passed over. A monocular pose graph looks like a file without content.
# Seen:
#   g2o reads 3 nodes and 2 edges; gtsam reads 0 values and 0 factors
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gtsam==4.3.0 g2opy==2.3.0
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import g2opy
import gtsam

IDENTITY = " ".join("1" if i == j else "0" for i in range(7) for j in range(i, 7))
with open("made.g2o", "w") as file:
    for node in range(3):
        file.write(f"VERTEX_SIM3:EXPMAP {node} 0 0 0 1 {-node} 0 0 1\n")
    for node in range(2):
        file.write(f"EDGE_SIM3:EXPMAP {node} {node + 1} 0 0 0 1 -1 0 0 1 {IDENTITY}\n")
made = g2opy.SparseOptimizer()
made.load("made.g2o")
made.save("graph.g2o")
read = g2opy.SparseOptimizer()
read.load("graph.g2o")
graph, values = gtsam.readG2o("graph.g2o", True)
g2o = len(read.vertices()), len(read.edges())
found = values.size(), graph.size()
print(f"g2o reads {g2o[0]} nodes and {g2o[1]} edges; gtsam reads {found[0]} values and {found[1]} factors")
if g2o != (3, 2) or found != (0, 0):
    sys.exit("changed")
EOF
