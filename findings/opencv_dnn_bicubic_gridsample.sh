#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), DNN module, GridSample with mode="bicubic"; ONNX Runtime 1.32.0 and
# ONNX's own reference implementation (onnx 1.23.2) read the same model.
# Behaviour: OpenCV limits each bicubic value to the range of the 4x4 neighbours that it comes from. The operator's
# definition does not: a cubic kernel has negative weights, and its values overshoot. Most samples agree, some are far
# off, and no warning is given. mode="bilinear" agrees.
# Seen, 400 samples of white noise of 4 channels:
#   bilinear: 0 of 1600 values differ by more than 1e-3, largest difference 0.000
#   bicubic: 39 of 1600 values differ by more than 1e-3, largest difference 0.240
#   bicubic, ONNX Runtime's values limited to their neighbours: largest difference 0.000
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

ROWS, COLUMNS, COUNT = 15, 20, 400
rng = np.random.default_rng(0)
field = rng.normal(size=(1, 4, ROWS, COLUMNS)).astype(np.float32)
# Far from the border, where padding would matter.
grid = rng.uniform(-0.7, 0.7, (1, 1, COUNT, 2)).astype(np.float32)


def sampled(mode):
    """The values (4, COUNT) of OpenCV and of ONNX Runtime, and the reference's."""
    def made(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def model(opset, word):
        node = helper.make_node("GridSample", ["field", "grid"], ["out"], mode=word, align_corners=0)
        inputs = [made("field", field.shape), made("grid", grid.shape)]
        graph = helper.make_graph([node], "sampling", inputs, [made("out", (1, 4, 1, COUNT))])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)

    data = model(18, mode).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    runtime = session.run(None, {"field": field, "grid": grid})[0][0, :, 0]
    # From opset 20 on the modes are called linear and cubic: the reference knows these words only.
    evaluator = ReferenceEvaluator(model(20, mode.removeprefix("bi")))
    reference = evaluator.run(None, {"field": field, "grid": grid})[0][0, :, 0]
    net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    net.setInput(field, "field")
    net.setInput(grid, "grid")
    return np.asarray(net.forward("out")).reshape(4, COUNT), runtime, reference


counts = {}
for mode in ("bilinear", "bicubic"):
    opencv, runtime, reference = sampled(mode)
    if np.abs(runtime - reference).max() > 1e-3:
        sys.exit(f"ONNX Runtime and ONNX's reference disagree ({mode}): nothing to compare with")
    apart = np.abs(opencv - runtime)
    counts[mode] = int((apart > 1e-3).sum())
    text = f"{counts[mode]} of {apart.size} values differ by more than 1e-3"
    print(f"{mode}: {text}, largest difference {apart.max():.3f}")

x = np.floor((grid[0, 0, :, 0] + 1) * COLUMNS / 2 - 0.5).astype(int)
y = np.floor((grid[0, 0, :, 1] + 1) * ROWS / 2 - 0.5).astype(int)
patches = np.stack([field[0, :, b - 1 : b + 3, a - 1 : a + 3].reshape(4, -1) for a, b in zip(x, y)], axis=1)
limited = np.clip(runtime, patches.min(axis=2), patches.max(axis=2))
rest = np.abs(opencv - limited).max()
print(f"bicubic, ONNX Runtime's values limited to their neighbours: largest difference {rest:.3f}")
if counts["bilinear"] != 0 or counts["bicubic"] < 10 or rest > 1e-3:
    sys.exit("changed")
EOF
