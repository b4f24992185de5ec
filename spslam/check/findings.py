"""What a check found: findings with their level, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from spslam.notices import counted

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
# Groups of findings in the order in which they are printed.
GROUPS = ("input", "time", "images", "motion", "stereo", "depth", "camera", "ground truth")


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        group: one of `GROUPS`.
        topic: kind of the finding, for programs, snake_case.
        level: `ok`; `note`: true, and worth knowing; `warning`: results are worse than they need to
            be; `error`: a run fails, or its results are useless.
        text: what was measured, with the number.
        expected: what it should be; empty if that is obvious.
        advice: what to do; empty if nothing is to be done.
        value: the number itself; None without one.
    """

    group: str
    topic: str
    level: Level
    text: str
    expected: str = ""
    advice: str = ""
    value: float | None = None

    @property
    def line(self) -> str:
        """The finding in one line, without its group."""
        expected = f" (expected: {self.expected})" if self.expected else ""
        advice = f": {self.advice}" if self.advice else ""
        return f"{self.level:<8}{self.text}{expected}{advice}"


@dataclass
class Report:
    """All findings of a recording.

    Attributes:
        name: name of the recording.
        findings: in the order in which they were made.
        frames: number of frames that were examined.
        length: number of frames of the recording.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    frames: int = 0
    length: int = 0

    def add(self, findings: Iterable[Finding]) -> None:
        """Append findings."""
        self.findings.extend(findings)

    def count(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    def topics(self, *levels: Level) -> list[str]:
        """Return the topics of the findings of some levels."""
        return [finding.topic for finding in self.findings if finding.level in levels]

    @property
    def failed(self) -> bool:
        """Whether a run would fail or be useless."""
        return self.count("error") > 0

    @property
    def verdict(self) -> str:
        """The last line of the report."""
        errors, warnings = self.count("error"), self.count("warning")
        if errors:
            head = f"a run would fail or be useless: {counted(errors, 'error')}"
            return head + (f", {counted(warnings, 'warning')}" if warnings else "")
        if warnings:
            return f"a run will work, but not as well as it could: {counted(warnings, 'warning')}"
        notes = self.count("note")
        return "nothing is wrong" + (f"; {counted(notes, 'note')}" if notes else "")

    def lines(self) -> list[str]:
        """Return the report in lines: groups, findings, verdict."""
        lines = [f"{self.name}: {self.frames} of {counted(self.length, 'frame')} examined"]
        for group in GROUPS:
            mine = [finding for finding in self.findings if finding.group == group]
            if mine:
                lines.append(group)
                worst_first = sorted(mine, key=lambda finding: -LEVELS.index(finding.level))
                lines += [f"  {finding.line}" for finding in worst_first]
        return [*lines, f"verdict: {self.verdict}"]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "name": self.name,
            "frames_examined": self.frames,
            "frames": self.length,
            "verdict": self.verdict,
            "failed": self.failed,
            "findings": [asdict(finding) for finding in self.findings],
        }
