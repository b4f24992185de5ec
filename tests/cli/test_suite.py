"""`spslam bench SUITE`, `list` and `compare`."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import call, refused
from public_archives import kitti_archives
from suite_runs import FakePool, metrics, results, row

from spslam.benchmark.perform import Request
from spslam.benchmark.results import Results
from spslam.cli import suite as cli_suite

TINY = """
title: Tiny <suite>
metrics: [ate_rmse_m, rpe_trans_m]
grids:
  - sequences: {small: {world: demo-small, max_frames: 10}}
    sensors: [stereo, mono]
    extractors: {orb: {extractor: orb}, sift: {extractor: sift}}
    repeats: 3
"""


@pytest.fixture
def real_plots() -> None:
    """Requested by tests that need the true plots, which take a second each time."""


@pytest.fixture
def pool(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> FakePool:
    """A fake pool that performs the runs; the current folder has tiny.yaml."""
    if "real_plots" not in request.fixturenames:
        monkeypatch.setattr("spslam.benchmark.report.write_plot", lambda *_: None)
        monkeypatch.setattr("spslam.benchmark.page.plot_svg", lambda *_: "")
    fake = FakePool()
    monkeypatch.setattr(cli_suite, "choose_pool", lambda workers, scheduler: fake)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPSLAM_DATA", raising=False)
    Path("tiny.yaml").write_text(TINY)
    return fake


def rows(folder: str = "out") -> dict[str, dict[str, Any]]:
    values = json.loads(Path(folder, "results.json").read_text())
    return {row["id"]: row for row in values["runs"]}


def bench(*arguments: str) -> int:
    return call("bench", "tiny.yaml", "--out", "out", *arguments)


def test_every_run_has_a_row_and_a_folder(
    pool: FakePool, real_plots: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == 0
    found = rows()
    assert list(found) == pool.requested and len(found) == 12
    one = found["small_mono_sift_1"]
    assert one["command"] == (
        "spslam run demo-small@2 --sensor mono --config demo_mono --extractor sift --max-frames 10 "
        "--set features.threads=1 --set seed=1"
    )
    assert (one["varied"], one["frames"], one["reason"]) == ("world 2, seed 1", 10, None)
    assert one["identity"].keys() == {
        "input",
        "config_sha256",
        "front_end",
        "weights_sha256",
        "code_sha256",
    }
    assert one["machine"]["processor"] == "Abacus" and one["metrics"]["version_spslam"] == "0.1.0"
    assert Path("out/runs/small_mono_sift_1/metrics.json").is_file()
    printed = capsys.readouterr()
    assert "| small | mono | **100 % · 10.0 (10.0–10.0) mm** |" in printed.out
    assert "12/12 small" in printed.err
    assert {path.name for path in Path("out").iterdir()} == {
        *("results.json", "runs", "table.md", "errors.png", "report.html")
    }


def test_finished_runs_are_skipped_and_lost_ones_repeated(pool: FakePool) -> None:
    assert bench("--only", "orb") == 0
    assert len(pool.requested) == 6
    pool.requested.clear()
    assert bench() == 0
    assert len(pool.requested) == 6 and all("sift" in run_id for run_id in pool.requested)
    pool.requested.clear()
    shutil.rmtree("out/runs/small_mono_orb_2")
    assert bench() == 0
    assert pool.requested == ["small_mono_orb_2"]
    pool.requested.clear()
    assert bench() == 0 and pool.requested == []


def test_changed_settings_are_refused_and_overwritten_on_request(
    pool: FakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == 0
    before = rows()
    pool.requested.clear()
    Path("tiny.yaml").write_text(TINY.replace("sift: {", "sift: {extractor: orb}, other: {"))
    capsys.readouterr()
    message = refused(capsys, "bench", "tiny.yaml", "--out", "out")
    assert (
        "6 runs in" in message
        and "features.extractor orb (was sift)" in message
        and "--overwrite" in message
    )
    assert rows() == before and pool.requested == []
    assert bench("--overwrite") == 0
    assert len(pool.requested) == 12 and not any("orb" in run_id for run_id in pool.requested)
    assert rows()["small_mono_sift_0"]["identity"] != before["small_mono_sift_0"]["identity"]


def test_runs_that_are_not_in_the_suite_are_kept_until_overwritten(
    pool: FakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == 0
    Path("tiny.yaml").write_text(TINY.replace(", sift: {extractor: sift}", ""))
    capsys.readouterr()
    assert bench() == 0
    assert "6 runs in" in capsys.readouterr().err and len(rows()) == 12
    assert bench("--overwrite") == 0
    assert len(rows()) == 6 and not Path("out/runs/small_mono_sift_0").exists()


def test_failures_have_rows_with_reason_and_tracking_rate(
    pool: FakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: Request) -> dict[str, Any] | None:
        if "mono_sift" in request.id:
            return metrics(tracked=4, frames=5, ate=0.02, reason="the <disk> is gone")
        return None if request.id == "small_stereo_orb_1" else metrics()

    pool.answer = answer
    assert bench() == 2
    printed = capsys.readouterr()
    assert "error: 1 run has no metrics, such as small_stereo_orb_1: it broke" in printed.err
    # Five frames were never reached.
    assert "40.0 % · 20.0 (20.0–20.0) mm" in printed.out
    # Two of three runs tracked all frames, the third none; the error does not hide it.
    assert "100 % (0.0–100)" in printed.out
    table = Path("out/table.md").read_text()
    assert "| small stereo orb #1 | 0.0 % | it broke |" in table
    assert "| small mono sift #0 | 40.0 % | the <disk> is gone |" in table
    page = Path("out/report.html").read_text()
    assert "the &lt;disk&gt; is gone" in page and "the <disk>" not in page
    # A run without metrics is repeated, a run that lost tracking is not.
    pool.requested.clear()
    pool.answer = lambda request: metrics()
    assert bench() == 0
    assert pool.requested == ["small_stereo_orb_1"]


def test_interrupted_suites_are_resumed(pool: FakePool, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Request) -> dict[str, Any]:
        if len(pool.requested) == 4:
            raise KeyboardInterrupt
        return metrics()

    pool.answer = answer
    assert bench() == 130
    assert "3 of 12 runs are done and kept" in capsys.readouterr().err
    assert len(rows()) == 3 and Path("out/report.html").is_file()
    pool.requested.clear()
    pool.answer = lambda request: metrics()
    assert bench() == 0
    assert len(pool.requested) == 9


def test_a_run_with_other_settings_than_requested_is_not_used(
    pool: FakePool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("suite_runs.settings", lambda request: "seed: 99\n")
    assert bench("--only", "orb") == 2
    assert "other settings than planned" in capsys.readouterr().err
    assert not Path("out/runs").exists() or not any(Path("out/runs").iterdir())


def test_missing_sequences_are_named_with_the_command_that_fetches_them(
    pool: FakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "spslam data fetch kitti --data" in refused(capsys, "bench", "kitti", "--data", "data")
    assert "spslam data fetch tum-fr1_xyz --data" in refused(
        capsys, "bench", "tum", "--only", "fr1_xyz", "--data", "data"
    )
    message = refused(capsys, "bench", "euroc", "--data", "data", "--available")
    assert "no run of the suite can be done: 11 sequences are not in" in message
    assert pool.requested == []


@pytest.mark.slow
def test_sequences_are_found_where_data_fetch_puts_them(
    pool: FakePool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack_kitti(Path("data/kitti"))
    assert call("bench", "kitti", "--data", "data", "--available", "--out", "out") == 0
    printed = capsys.readouterr()
    assert "left out: 9 sequences are not in" in printed.err
    assert "spslam data fetch kitti-02 kitti-03" in printed.err
    found = rows()
    assert {row["sequence"] for row in found.values()} == {"kitti-00", "kitti-01"}
    assert len(found) == 2 * 2 * 4 * 3
    one = found["kitti-01_mono_superpoint_lite_2"]
    assert (
        f"run {Path.cwd()}/data/kitti/sequences/01 --sensor mono --config kitti_mono"
        in one["command"]
    )
    assert one["identity"]["input"]["frames"] == "kitti-01"
    assert one["identity"]["front_end"] == "superpoint superpoint_lite"
    assert len(one["identity"]["weights_sha256"]) == 64
    assert found["kitti-01_mono_orb_2"]["identity"]["weights_sha256"] is None
    # Published metrics are listed next to ours with their source; moved data is the same data.
    table = Path("out/table.md").read_text()
    assert re.search(r"\| kitti-00 \| stereo \|.*\| 1.30 m \| 3.95 m \| 3.93 m \|", table)
    assert "Mur-Artal and Tardos, T-RO 2017, Table I" in table
    assert "9 sequences are not in" in Path("out/report.html").read_text()
    pool.requested.clear()
    Path("data").rename("elsewhere")
    monkeypatch.setenv("SPSLAM_DATA", "elsewhere")
    assert call("bench", "kitti", "--available", "--out", "out") == 0
    assert pool.requested == []


def test_published_metrics_are_shown_only_for_whole_sequences(pool: FakePool) -> None:
    unpack_kitti(Path("data/kitti"))
    Path("part.yaml").write_text(
        "title: x\npublished: [kitti]\n"
        "grids: [{sensors: [stereo], extractors: {orb: {extractor: orb}}, "
        "sequences: {kitti-00: {public: kitti-00, max_frames: 2}, first: {public: kitti-01}}}]"
    )
    assert call("bench", "part.yaml", "--data", "data", "--out", "out") == 0
    table = Path("out/table.md").read_text()
    assert re.search(r"\| kitti-00 \| stereo \| .* mm \| – \| – \| – \|", table)
    # Matched by data, whatever the suite calls the sequence.
    assert re.search(r"\| first \| stereo \| .* \| 10.4 m \| 21.6 m \|", table)


def test_list_shows_available_sequences(pool: FakePool, capsys: pytest.CaptureFixture[str]) -> None:
    unpack_kitti(Path("data/kitti"))
    assert call("bench", "list", "--data", "data") == 0
    printed = capsys.readouterr().out
    assert "264 runs; 2 of 11 sequences are in" in printed
    assert re.search(r"smoke: .* 48 runs; built-in worlds only", printed)
    assert f"spslam data fetch euroc --data {Path.cwd()}/data" in printed


def test_tables_are_written_between_the_comments_of_a_file(
    pool: FakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("page.md")
    page.write_text(
        "above\n<!-- spslam bench tiny -->\nold\n<!-- end of spslam bench tiny -->\nbelow\n"
    )
    assert bench("--markdown", "page.md") == 0
    text = page.read_text()
    assert text.startswith("above\n<!-- spslam bench tiny -->\n") and text.endswith(
        "tiny -->\nbelow\n"
    )
    assert "| small | stereo |" in text and "old" not in text
    # Existing results give the same table.
    page.write_text(text.replace("| small |", "| large |"))
    Path("out/report.html").unlink()
    assert call("bench", "show", "out", "--markdown", "page.md") == 0
    assert page.read_text() == text and Path("out/report.html").is_file()
    pool.requested.clear()
    capsys.readouterr()
    page.write_text("nothing")
    assert "must have the line <!-- spslam bench tiny -->" in refused(
        capsys, "bench", "tiny.yaml", "--out", "new", "--markdown", "page.md"
    )
    assert pool.requested == []


def test_foreign_folders_are_left_alone(pool: FakePool, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").touch()
    assert "holds other files than results (thesis.tex)" in refused(
        capsys, "bench", "tiny.yaml", "--out", "out"
    )
    Path("out/thesis.tex").rename("out/report.html")
    assert "holds other files than results (report.html)" in refused(
        capsys, "bench", "tiny.yaml", "--out", "out"
    )
    results(Path("other"), [row()])
    assert "holds results of the suite mine" in refused(
        capsys, "bench", "tiny.yaml", "--out", "other"
    )
    Path("other/results.json").write_text("{}")
    assert "is no file of results" in refused(capsys, "bench", "tiny.yaml", "--out", "other")
    Path("other/results.json").write_text("[" * 1000)
    assert "is no file of results: it is not valid JSON" in refused(
        capsys, "bench", "tiny.yaml", "--out", "other"
    )


def test_wrong_calls_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    assert "no config named 'smoek': expected one of ablation" in refused(capsys, "bench", "smoek")
    both = ("--workers", "1", "--scheduler", "tcp://127.0.0.1:1")
    assert "--workers is for this machine and --scheduler for a Dask cluster" in refused(
        capsys, "bench", "tiny.yaml", *both
    )


def test_compare_exits_with_1_on_a_regression(
    pool: FakePool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results(tmp_path / "a", [row(repeat=k, ate=0.01) for k in range(3)])
    results(tmp_path / "b", [row(repeat=k, ate=0.02) for k in range(3)])
    assert call("bench", "compare", "a", "b/results.json") == 1
    printed = capsys.readouterr().out
    assert "| worse | world mono orb | ATE | 10.0 (10.0–10.0) mm | 20.0 (20.0–20.0) mm |" in printed
    assert "2 worse, 1 same" in printed
    assert call("bench", "compare", "b", "a") == 0
    assert call("bench", "compare", "a", "a") == 0
    assert call("bench", "compare", "a", "b", "--tolerance", "1.5") == 0
    capsys.readouterr()
    assert "expected a folder that `spslam bench SUITE` wrote" in refused(
        capsys, "bench", "compare", "a", "gone"
    )


class Links(HTMLParser):
    """Links of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_network_and_links_to_every_run(pool: FakePool, real_plots: None) -> None:
    assert bench() == 0
    html = Path("out/report.html").read_text()
    links = [link for link in Links(html).links if not link.startswith(("data:", "#"))]
    assert len(links) == 12 and all(Path("out", link).is_file() for link in links)
    assert "Tiny &lt;suite&gt;" in html and "Tiny <suite>" not in html
    assert not re.search(r"@import|\{\{", html) and html.count("<svg") == 1
    # The drawing uses the colours of the page's theme.
    assert "var(--stage-0)" in html and "#3d7fc1" not in html.partition("</style>")[2]
    assert Path("out/errors.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_unchanged_by_reading_and_writing(tmp_path: Path) -> None:
    made = results(tmp_path / "a", [row(repeat=1), row(ate=None, tracked=0, reason="lost")])
    read = Results.load(tmp_path / "a")
    assert read.rows == made.rows and read.metrics == ["ate_rmse_m"]
    assert not read.is_done("world_mono_orb_default_1")


def unpack_kitti(root: Path) -> None:
    """Write KITTI's folders as `spslam data fetch` unpacks them."""
    import io
    import zipfile

    for data in kitti_archives().values():
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(root / "archive")
    for name in ("sequences", "poses"):
        (root / "archive" / "dataset" / name).rename(root / name)
    shutil.rmtree(root / "archive")
