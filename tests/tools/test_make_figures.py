"""Which figures are made, and how those that cannot be made are handled."""

from pathlib import Path

import make_figures
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_makes_every_picture_of_the_documents() -> None:
    source = (ROOT / "tools" / "make_figures.py").read_text(encoding="utf-8")
    pictures = sorted(path.name for path in (ROOT / "docs" / "pictures").iterdir())
    assert [name for name in pictures if f'"{name}"' not in source] == []


def test_a_figure_that_cannot_be_made_is_kept_and_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def fail() -> None:
        raise make_figures.CannotMakeError("no data")

    monkeypatch.setattr(
        make_figures, "FIGURES", {"broken": fail, "fine": lambda: made.append("fine")}
    )
    assert make_figures.main([]) == 1
    assert made == ["fine"]
    assert capsys.readouterr().out == "broken: left as it is: no data\nfine: made\n"
    assert make_figures.main(["fine"]) == 0
    assert make_figures.main(["unknown"]) == 2


def test_an_error_names_the_failed_command(tmp_path: Path) -> None:
    with pytest.raises(make_figures.CannotMakeError, match=r"spslam view .*no-run"):
        make_figures.spslam("view", tmp_path / "no-run", "--render", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
