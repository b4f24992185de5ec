"""How OpenVINO is imported."""

import subprocess
import sys

_LOAD = """
import sys
from spslam.frontend.engines.openvino_model import load_openvino
load_openvino()
assert "openvino.tools.ovc" not in sys.modules, "the converter is imported"
import openvino
try:
    openvino.convert_model(None)
except Exception:
    pass
from openvino.tools.ovc import convert_model
assert openvino.convert_model is convert_model
assert not any(name.startswith("openvino_telemetry") for name in sys.modules)
"""


def test_the_converter_is_imported_when_it_is_first_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOAD],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
