"""Information about the machine and the process."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from spslam.process.machine import process_age_s

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it")
def test_the_age_of_a_process_includes_the_time_before_the_import() -> None:
    code = (
        "import time; time.sleep(0.5); from spslam.process.machine import process_age_s; "
        "print(process_age_s())"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 0.5 <= float(reported) < 60


def test_the_age_is_unknown_if_the_system_does_not_report_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, clock = process_age_s(tmp_path / "stat"), time.perf_counter() + 7.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    for text in (None, "", "7 (a) b) R 1", "7 (python) R" + " x" * 40):
        if text is not None:
            (tmp_path / "stat").write_text(text)
        assert process_age_s(tmp_path / "stat") == pytest.approx(begun + 7.0, abs=0.5)
