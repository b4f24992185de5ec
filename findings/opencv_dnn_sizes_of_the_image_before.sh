#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), DNN module (the new engine, the default), one Net, images of one size
# but of different content; ONNX Runtime 1.32.0 reads the same model (made with onnx 1.23.2).
# The model counts the pixels that are not zero (NonZero, Shape), makes a table of that many rows (Range, Reshape) and
# adds the number of the row to each (Add).
# Behaviour: the table has the right shape, but Add still goes by the shapes of the first image: the numbers of the rows
# are wrong, without a warning. With a new Net for each image they are right.
# Models that keep points by their score have such inner shapes.
# Seen, the first column of the table:
#   3 pixels: right [0 1 2], a new Net [0 1 2], the same Net [0 1 2]
#   4 pixels: right [0 1 2 3], a new Net [0 1 2 3], the same Net [0 0 1 2]
#   6 pixels: right [0 1 2 3 4 5], a new Net [0 1 2 3 4 5], the same Net [0 0 1 1 2 2]
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
from onnx import TensorProto, helper, numpy_helper

constants = {
    "zero": np.int64(0),
    "one": np.int64(1),
    "second": np.array([1]),
    "rest": np.array([-1]),
    "column": np.array([-1, 1]),
    "zeros": np.zeros(12, np.float32),
}
nodes = [
    helper.make_node("NonZero", ["image"], ["places"]),
    helper.make_node("Shape", ["places"], ["shape"]),
    helper.make_node("Gather", ["shape", "one"], ["count"], axis=0),
    helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
    helper.make_node("Cast", ["numbers"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Reshape", ["floats", "column"], ["rows"]),
    helper.make_node("Gather", ["shape", "second"], ["height"], axis=0),
    helper.make_node("Concat", ["height", "rest"], ["sides"], axis=0),
    helper.make_node("Reshape", ["zeros", "sides"], ["empty"]),
    helper.make_node("Add", ["empty", "rows"], ["table"]),
]
graph = helper.make_graph(
    nodes,
    "table",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, (3, 4))],
    [helper.make_tensor_value_info("table", TensorProto.FLOAT, ("height", "width"))],
    [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
data = model.SerializeToString()
session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def net():
    """A new Net of the model."""
    return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))


def table(network, image):
    """The output of `network` for an image."""
    network.setInput(image, "image")
    return np.array(network.forward())


same, wrong, changed = net(), [], False
for count in (3, 4, 6):
    image = np.zeros((3, 4), np.float32)
    image.flat[:count] = 1
    right = session.run(None, {"image": image})[0]
    new, again = table(net(), image), table(same, image)
    columns = [each[:, 0].astype(int) for each in (right, new, again)]
    print("{} pixels: right {}, a new Net {}, the same Net {}".format(count, *columns))
    wrong.append(not np.array_equal(right, again))
    changed |= right.shape != again.shape or not np.array_equal(right, new)
if changed or wrong != [False, True, True]:
    sys.exit("changed")
EOF
