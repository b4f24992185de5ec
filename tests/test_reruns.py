"""Runs are reproducible: the same bytes for other threads, hash seeds and feature caches."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
FRAMES = 20


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"
    } | variables
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_products_do_not_depend_on_the_threads_of_blas() -> None:
    """Two BLAS threads would sum the products of long vectors in another order."""
    code = (
        "import hashlib\n"
        "from spslam.cli.app import main\n"
        "try:\n"
        "    main(['config'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "import numpy as np\n"
        "rng = np.random.default_rng(0)\n"
        "print(hashlib.sha256((rng.normal(size=(300, 2048)) "
        "@ rng.normal(size=2048)).tobytes()).hexdigest())\n"
    )
    default, one, two = (
        run(["-c", code], **threads)
        for threads in ({}, *({"OPENBLAS_NUM_THREADS": n} for n in "12"))
    )
    assert default.returncode == 0, default.stderr
    assert default.stdout == one.stdout == two.stdout
    assert default.stderr == one.stderr == ""
    assert two.stderr.startswith("note: OPENBLAS_NUM_THREADS=2 is not used")
    assert two.stderr.count("\n") == 1


@pytest.mark.slow
def test_runs_give_the_same_bytes_again(tmp_path: Path) -> None:
    features = tmp_path / "features"

    def digests(name: str, *options: str, **variables: str) -> list[str]:
        out = tmp_path / name
        command = [
            "run_slam.py",
            "demo-small",
            "--sensor",
            "stereo",
            "--max-frames",
            str(FRAMES),
            "--outputs",
            "map",
            "--out",
            str(out),
        ]
        done = run([*command, "--cache", str(features), *options], **variables)
        assert done.returncode == 0, done.stderr
        return [
            hashlib.sha256((out / file).read_bytes()).hexdigest()
            for file in ("map.npz", "trajectory.tum")
        ]

    cold = digests("cold", PYTHONHASHSEED="0")
    assert len(list(features.rglob("*.features"))) >= FRAMES
    assert digests("warm", PYTHONHASHSEED="1", OPENBLAS_NUM_THREADS="2") == cold
    for path in features.rglob("*.features"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert (
        digests("damaged", "--set", "features.threads=1", PYTHONHASHSEED="2", OMP_NUM_THREADS="1")
        == cold
    )
