#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), cv2.ALIKED and cv2.DISK, which run a given ONNX model (here ones that
# always answer with the same four points, made with onnx 1.23.2), with a mask that allows the left half of the image.
# Behaviour: cv2.ALIKED ignores the mask and keeps every point, without a warning, in detect and in detectAndCompute.
# cv2.DISK keeps those in the mask, as SIFT and ORB do.
# Seen, x of the keypoints with the mask (32 and more are outside):
#   ALIKED: detect [ 8 24 40 56], detectAndCompute [ 8 24 40 56]
#   DISK: detect [ 8 24], detectAndCompute [ 8 24]
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 opencv-python-headless==5.0.0.93
cd "$folder"
venv/bin/python - <<'EOF'
import sys

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
pixels = np.array([[8, 8], [24, 24], [40, 40], [56, 56]])
rng = np.random.default_rng(0)
descriptors = rng.normal(size=(4, 128)).astype(np.float32)
scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)


def write(path, keypoints, descriptors, scores):
    """Store a model of an image (1, 3, SIDE, SIDE) whose outputs are these arrays, whatever the image."""
    outputs = {"keypoints": keypoints, "descriptors": descriptors, "scores": scores}
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
    ]
    infos, constants = [], [numpy_helper.from_array(np.array(0, np.float32), "zero")]
    for name, values in outputs.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        constants.append(numpy_helper.from_array(values.astype(np.float32), f"{name}_stored"))
        nodes.append(helper.make_node("Add", [f"{name}_stored", "nothing"], [f"{name}_float"]))
        nodes.append(helper.make_node("Cast", [f"{name}_float"], [name], to=kind))
        infos.append(helper.make_tensor_value_info(name, kind, values.shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIDE, SIDE))
    graph = helper.make_graph(nodes, "points", [image], infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


write("aliked.onnx", (pixels * 2 / SIDE - 1).astype(np.float32), descriptors, scores)
write("disk.onnx", pixels[None].astype(np.int64), descriptors[None], scores[None])
params = cv2.ALIKED_Params()
params.inputSize = (SIDE, SIDE)
detectors = {
    "ALIKED": cv2.ALIKED_create("aliked.onnx", params),
    "DISK": cv2.DISK_create("disk.onnx", imageSize=(SIDE, SIDE)),
}
image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
mask = np.zeros((SIDE, SIDE), np.uint8)
mask[:, :32] = 255
counts = []
for name, detector in detectors.items():
    found = detector.detect(image, mask), detector.detectAndCompute(image, mask)[0]
    columns = [np.array(sorted(round(point.pt[0]) for point in points)) for points in found]
    print("{}: detect {}, detectAndCompute {}".format(name, *columns))
    counts.append([len(points) for points in found])
if counts != [[4, 4], [2, 2]]:
    sys.exit("changed")
EOF
