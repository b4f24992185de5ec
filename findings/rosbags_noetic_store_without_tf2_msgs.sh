#!/usr/bin/env bash
# rosbags 0.11.9, get_typestore(Stores.ROS1_NOETIC): the type of /tf and /tf_static, tf2_msgs/msg/TFMessage, is not in it.
# Behaviour: the stores of ROS 2 have the type, the only store of ROS 1 has not, and Writer.add_connection with this store
# raises TypesysError. Reading works through AnyReader, which takes the definition out of the bag. The type must be registered:
# store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")).
# Seen:
#   ROS1_NOETIC: False
#   ROS2_HUMBLE: True
#   ROS2_JAZZY: True
#   add_connection: TypesysError
#   registered: ok
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9
cd "$folder"
venv/bin/python - <<'EOF'
import sys

from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

KIND = "tf2_msgs/msg/TFMessage"
there = []
for name in ("ROS1_NOETIC", "ROS2_HUMBLE", "ROS2_JAZZY"):
    there.append(KIND in get_typestore(Stores[name]).fielddefs)
    print(f"{name}: {there[-1]}")
store = get_typestore(Stores.ROS1_NOETIC)
words = []
with Writer("x.bag") as writer:
    for step in ("add_connection", "registered"):
        if step == "registered":
            store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", KIND))
        try:
            writer.add_connection("/tf_static", KIND, typestore=store)
            words.append("ok")
        except Exception as error:
            words.append(type(error).__name__)
        print(f"{step}: {words[-1]}")
if there != [False, True, True] or words != ["TypesysError", "ok"]:
    sys.exit("changed")
EOF
