"""Tables of our runs and the peers': errors, time and memory, and ratios within a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from spslam.benchmark.metrics import number, percent_spread, scale_of, spread_text
from spslam.benchmark.peers.suite import OFFLINE, POINTS, REALTIME
from spslam.benchmark.results import Group, Results, Row
from spslam.benchmark.table import NOTHING, Table
from spslam.evaluation.summary import Spread
from spslam.notices import counted


@dataclass(frozen=True)
class _Column:
    """A column: key of `metrics.json`, heading, unit; metres below 0.1 are shown in millimetres."""

    key: str
    title: str
    unit: str


_ERRORS = (
    _Column("ate_rmse_m", "ATE", "m"),
    _Column("keyframes_ate_rmse_m", "ATE of keyframes", "m"),
    _Column("rpe_trans_m", "RPE", "m"),
    _Column("rpe_rot_deg", "RPE", "°"),
    _Column("t_rel_percent", "drift", "%"),
)
_OF_ERRORS = {column.key for column in _ERRORS}
_COSTS = (
    _Column("loop_ms", "loop ms", ""),
    _Column("whole_ms", "whole run ms", ""),
    _Column("cpu_loop_ms", "CPU of the loop ms", ""),
    _Column("cpu_whole_ms", "CPU of the whole run ms", ""),
    _Column("start_s", "start s", ""),
    _Column("finish_s", "finish s", ""),
    _Column("tree_peak_mb", "memory MB", ""),
)


# Largest difference of two tracking rates at which errors are compared, fraction of the frames.
_SAME_FRAMES = 0.05


@dataclass(frozen=True)
class Ratio:
    """A ratio of our metric to a peer's.

    Attributes:
        title: heading.
        ours, theirs: keys of `metrics.json`.
        timed: whether it compares times: only runs of one call of the suite count.
    """

    title: str
    ours: str
    theirs: str
    timed: bool


RATIOS = (
    Ratio("ATE", "ate_rmse_m", "ate_rmse_m", timed=False),
    Ratio("ATE of keyframes", "keyframes_ate_rmse_m", "keyframes_ate_rmse_m", timed=False),
    Ratio("RPE", "rpe_trans_m", "rpe_trans_m", timed=False),
    Ratio("loop ÷ its tracking", "loop_ms", "track_median_ms", timed=True),
    Ratio("loop", "loop_ms", "loop_ms", timed=True),
    Ratio("whole run", "whole_ms", "whole_ms", timed=True),
    Ratio("CPU of the loop", "cpu_loop_ms", "cpu_loop_ms", timed=True),
    Ratio("CPU of the whole run", "cpu_whole_ms", "cpu_whole_ms", timed=True),
    Ratio("memory", "tree_peak_mb", "tree_peak_mb", timed=False),
)


def peer_tables(results: Results) -> list[Table]:
    """Return all tables that have rows."""
    offline = [group for group in results.groups() if group.case.config == OFFLINE]
    realtime = [group for group in results.groups() if group.case.config == REALTIME]
    tables = [
        _error_table("Errors, after the tracking rate", offline),
        _ratio_table(results, offline),
        _cost_table(offline),
        _points_table(results),
        _realtime_table(realtime),
        _failure_table(results),
    ]
    return [table for table in tables if table.rows]


def peer_markdown(results: Results) -> str:
    """Return the tables with the remarks, for a Markdown file."""
    parts = [f"{table.title}\n\n{table.to_markdown()}" for table in peer_tables(results)]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in peer_notes(results))])


def peer_page(results: Results, missing: Iterable[str]) -> str:
    """Return the page `table.md`.

    Args:
        results: results of the suite.
        missing: one line for each missing part of the suite.
    """
    commands = dict.fromkeys(f"- {row.case}: `{row.command}`" for row in results.rows.values())
    parts = [f"# {results.title}", "Made by `spslam bench peers`.", peer_markdown(results)]
    left_out = "\n".join(f"- {line}" for line in missing)
    parts += [f"## Left out\n\n{left_out}"] if left_out else []
    return "\n\n".join([*parts, "## Commands", "\n".join(commands)]) + "\n"


def ratios(results: Results, peer: Group, ratio: Ratio) -> Spread | None:
    """Return the spread of a ratio over the rounds in which both systems have the metric."""
    values = []
    for row in peer.rows:
        ours = _partner(results, row)
        if ours is None or (ratio.timed and _session(ours) != _session(row)):
            continue
        apart = abs(ours.tracking_rate - row.tracking_rate) > _SAME_FRAMES
        if apart and ratio.ours in _OF_ERRORS:
            continue
        above, below = ours.figure(ratio.ours), row.figure(ratio.theirs)
        if above is not None and below is not None and below > 0:
            values.append(above / below)
    return Spread.of(values) if values else None


def settings_ratio(results: Results, peer: Group) -> tuple[float, int] | None:
    """Return our median ATE over the numbers of points, divided by a peer's median ATE.

    Where the peer has keyframes only, both are of keyframes.

    Returns:
        The ratio, and the number of settings; None without such runs.
    """
    key = "ate_rmse_m" if peer.spread("ate_rmse_m") else "keyframes_ate_rmse_m"
    theirs = peer.spread(key)
    ours = [
        value
        for row in results.rows.values()
        if (row.sequence, row.sensor) == (peer.case.sequence, peer.case.sensor)
        and row.config.startswith(POINTS)
        and abs(row.tracking_rate - peer.tracked.median) <= _SAME_FRAMES
        and (value := row.figure(key)) is not None
    ]
    if theirs is None or not ours or theirs.median <= 0:
        return None
    return median(ours) / theirs.median, len(ours)


def peer_notes(results: Results) -> list[str]:
    """Return the remarks on the tables."""
    rows = list(results.rows.values())
    rounds = max((row.repeat for row in rows), default=0) + 1
    found = [
        f"{counted(rounds, 'round')}: median, minimum and maximum in brackets. In a round the "
        "systems run one after the other on the same files, each in a process of its own with all "
        "cores. "
        "All are scored by spslam's evaluator: poses within 0.01 s, SE(3), for a single camera "
        "Sim(3); frames without a pose count as not tracked.",
        "Loop: from the first frame's request to the last pose, with reading and mapping, divided "
        "by all frames. Whole run: the process from start to end, divided by all frames. Tracking "
        "(median / 95 %): a frame from its image in memory to its pose; our features are "
        "extracted beside the tracking of earlier frames. CPU: user and system, with children.",
        "Ratios are ours divided by the peer's in the same round; below 1 is better (bold). "
        "“Loop ÷ its tracking” divides our loop, with reading and mapping, by the peer's median "
        "tracking alone. Errors are compared only where the tracking rates differ by at most 5 % "
        "of the frames.",
    ]
    found += _kinds(rows)
    licences = dict.fromkeys(
        f"{row.extractor}: {row.identity['licence']}" for row in rows if row.identity.get("licence")
    )
    if licences:
        found.append(f"Licences. {'; '.join(licences)}. spslam imports nothing of these systems.")
    found.append(_machines(rows))
    return found


def _kinds(rows: list[Row]) -> list[str]:
    of_keyframes = dict.fromkeys(
        f"{row.extractor} ({row.sensor})"
        for row in rows
        if row.metrics and row.metrics.get("scored") == "keyframes"
    )
    if not of_keyframes:
        return ["All trajectories have a pose for each tracked frame."]
    return [
        f"Keyframes only: {', '.join(of_keyframes)}. Their ATE is compared with that of our "
        "keyframes; the others have a pose for each tracked frame."
    ]


def _machines(rows: list[Row]) -> str:
    facts = Counter(
        f"{row.machine.get('processor') or row.machine.get('architecture')}, "
        f"{row.machine.get('cores')} cores"
        for row in rows
        if row.machine
    )
    loads = [load for row in rows if (load := row.figure("load_average")) is not None]
    busy = f"; load before a run {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    codes = sorted({row.identity["code_sha256"][:8] for row in rows} - {""})
    return f"{'; '.join(facts)}{busy}; code {', '.join(codes)}."


def _error_table(title: str, groups: list[Group]) -> Table:
    columns = [column for column in _ERRORS if any(group.spread(column.key) for group in groups)]
    heads = ["sequence", "sensor", "system", "tracked", *(_head(column) for column in columns)]
    rows = []
    for place in _places(groups):
        here = [group for group in groups if _place(group) == place]
        for group in here:
            cells = [_error(column, group, here) for column in columns]
            rows.append([*place, group.case.extractor, _tracked(group), *cells])
    return Table(title, heads, rows)


def _error(column: _Column, group: Group, here: list[Group]) -> str:
    """Format an error in the unit that suits all systems of a place."""
    spread = group.spread(column.key)
    if spread is None:
        return NOTHING
    medians = [other.median for one in here if (other := one.spread(column.key)) is not None]
    factor, unit = scale_of(column.unit, medians)
    return f"{spread_text(spread, factor)} {unit}"


def _head(column: _Column) -> str:
    return column.title if column.unit != "°" else f"{column.title} rotation"


def _ratio_table(results: Results, groups: list[Group]) -> Table:
    peers = [
        group
        for group in groups
        if _is_peer(group) and any(ratios(results, group, ratio) for ratio in RATIOS)
    ]
    kept = [ratio for ratio in RATIOS if any(ratios(results, peer, ratio) for peer in peers)]
    settings = any(settings_ratio(results, peer) for peer in peers)
    heads = ["sequence", "sensor", "ours divided by", *(ratio.title for ratio in kept)]
    heads += ["ATE, median of settings"] if settings else []
    rows: list[list[str]] = []
    better: set[tuple[int, int]] = set()
    for peer in peers:
        cells = [*_place(peer), peer.case.extractor]
        for spread in (ratios(results, peer, ratio) for ratio in kept):
            if spread is not None and spread.median <= 1:
                better.add((len(rows), len(cells)))
            cells.append(NOTHING if spread is None else spread_text(spread))
        found = settings_ratio(results, peer) if settings else None
        if found is not None and found[0] <= 1:
            better.add((len(rows), len(cells)))
        if settings:
            cells.append(NOTHING if found is None else f"{number(found[0])} ({found[1]} settings)")
        rows.append(cells)
    return Table("Ours divided by the peer's, in the same round", heads, rows, frozenset(better))


def _cost_table(groups: list[Group]) -> Table:
    columns = [column for column in _COSTS if any(group.spread(column.key) for group in groups)]
    heads = ["sequence", "sensor", "system", "tracking ms", *(column.title for column in columns)]
    rows = []
    for place in _places(groups):
        for group in (one for one in groups if _place(one) == place):
            if all(group.spread(column.key) is None for column in columns):
                continue
            cells = [_spread(group, column.key) for column in columns]
            tracking = _median_p95(group, "track_median_ms", "track_p95_ms")
            rows.append([*place, group.case.extractor, tracking, *cells])
    return Table("Time of a frame, and memory", heads, rows)


def _points_table(results: Results) -> Table:
    groups = [group for group in results.groups() if group.case.config.startswith(POINTS)]
    variants = list(dict.fromkeys(group.case.config for group in groups))
    rows = []
    for place in _places(groups):
        here = {group.case.config: group for group in groups if _place(group) == place}
        cells = [
            _error(_ERRORS[0], here[name], [*here.values()]) if name in here else ""
            for name in variants
        ]
        rows.append([*place, *cells])
    return Table("Our ATE with other numbers of points", ["sequence", "sensor", *variants], rows)


def _realtime_table(groups: list[Group]) -> Table:
    heads = ["sequence", "sensor", "system", "tracked", "dropped frames", "image to pose ms"]
    rows = [
        [
            *_place(group),
            group.case.extractor,
            _tracked(group),
            _spread(group, "dropped"),
            _median_p95(group, "image_to_pose_median_ms", "image_to_pose_p95_ms"),
        ]
        for group in groups
    ]
    return Table("At the time stamps (--realtime)", heads, rows)


def _failure_table(results: Results) -> Table:
    rows = [
        [f"{row.case} #{row.repeat + 1}", row.reason]
        for row in results.rows.values()
        if row.reason is not None
    ]
    return Table("Failed runs", ["run", "reason"], rows)


def _partner(results: Results, row: Row) -> Row | None:
    """Return our run in the round of a peer's run."""
    for other in results.rows.values():
        same = (other.sequence, other.sensor, other.config, other.repeat) == (
            row.sequence, row.sensor, row.config, row.repeat,
        )  # fmt: skip
        if same and other.identity.get("main"):
            return other
    return None


def _is_peer(group: Group) -> bool:
    return bool(group.rows[0].identity.get("licence"))


def _session(row: Row) -> object:
    return None if row.metrics is None else row.metrics.get("session")


def _tracked(group: Group) -> str:
    """Return the tracking rate; `failed` without a run that gave metrics."""
    failed = len(group.failures)
    if failed == len(group.rows):
        return "failed"
    return percent_spread(group.tracked) + (f", {failed} failed" if failed else "")


def _place(group: Group) -> tuple[str, str]:
    return group.case.sequence, group.case.sensor


def _places(groups: Iterable[Group]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(map(_place, groups)))


def _spread(group: Group, key: str) -> str:
    spread = group.spread(key)
    return NOTHING if spread is None else spread_text(spread)


def _median_p95(group: Group, median_key: str, p95_key: str) -> str:
    middle, high = group.spread(median_key), group.spread(p95_key)
    if middle is None:
        return NOTHING
    return f"{number(middle.median)} / {NOTHING if high is None else number(high.median)}"
