"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real sequences: SPSLAM_TEST_DATA, else ../shared/data, else the test is skipped."""
    folder = Path(os.environ.get("SPSLAM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set SPSLAM_TEST_DATA")
    return folder
