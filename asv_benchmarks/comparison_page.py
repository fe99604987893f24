"""Tables of `docs/comparison.md`, made of what `comparison` measured."""

import re
import statistics
from collections.abc import Sequence
from typing import NamedTuple, Self

from .tables import markdown

PACKAGES = {
    "numpy": "numpy",
    "numpy batched": "numpy",
    "cKDTree": "scipy",
    "faiss": "faiss",
    "faiss Panorama": "faiss",
    "torch": "torch",
    "BallTree": "scikit-learn",
}
"""Package by family of contestants."""

COMMANDS = {
    "numpy flatnonzero(X @ w >= b), rows": "np.flatnonzero(X @ w >= b)",
    "numpy flatnonzero(X @ w >= b), columns": "np.flatnonzero(np.asfortranarray(X) @ w >= b)",
    "numpy X @ W.T, batched": "np.flatnonzero(np.matmul(chunk, W.T) >= b)",
    "scipy cKDTree, huge ball, unsorted": "cKDTree(X).query_ball_point(c, r, return_sorted=False)",
    "scipy cKDTree": "cKDTree(X)",
    "scikit-learn BallTree, huge ball": "BallTree(X).query_radius(c, r)",
    "faiss IndexFlatIP": "IndexFlatIP(d).range_search(W / b, 1)",
    "faiss Panorama": "IndexFlatIPPanorama(d, 8, 2048).range_search(w, b)",
    "faiss Panorama, principal axes": "IndexFlatIPPanorama(d, 8, 2048).range_search(w @ axes, b)",
    "torch nonzero(X @ w >= b)": "(X @ w >= b).nonzero()",
    "numpy": "p = np.exp(s - s.max()); p @ V / p.sum()",
    "torch float32": "scaled_dot_product_attention(q, K, V)",
    "torch bfloat16": "scaled_dot_product_attention(q, K, V)",
}
"""What a peer runs, by its name."""


class Row(NamedTuple):
    """Ours and a peer, at the same time, at one thing."""

    group: str
    case: str
    package: str
    peer: str
    own_seconds: float
    peer_seconds: float
    wrong: int | None  # ids of the peer's in the queries that were checked

    @property
    def ratio(self) -> float:
        """Times ours that the peer takes."""
        return self.peer_seconds / self.own_seconds


class Results(NamedTuple):
    """All that was measured."""

    date: str
    machine: str
    load: float
    note: str
    versions: dict[str, str]
    rows: list[Row]

    def as_dict(self) -> dict:
        """As JSON has it."""
        return self._asdict() | {"rows": [row._asdict() for row in self.rows]}

    @classmethod
    def of_dict(cls, kept: dict) -> Self:
        """Back from JSON."""
        return cls(**kept | {"rows": [Row(**row) for row in kept["rows"]]})


def setting(results: Results) -> str:
    """Where and when."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    note = f" {results.note}" if results.note else ""
    return (
        f"Measured on {results.date} on {results.machine}, one thread each, by processor time;"
        f" load before the run: {results.load:g}.{note} Versions: {versions}."
    )


def peers(results: Results) -> str:
    """A line a peer: how often it was met, and how that ended."""
    by_peer: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        by_peer.setdefault((row.package, row.peer), []).append(row)
    header = ["peer", "version", "command", "met", "median", "least", "most", "it wins"]
    lines = []
    for (package, peer), rows in by_peer.items():
        ratios = [row.ratio for row in rows]
        figures = (statistics.median(ratios), min(ratios), max(ratios))
        wins = sum(ratio < 1.0 for ratio in ratios)
        lines.append(
            [
                f"`{peer}`",
                f"{package} {results.versions[package]}",
                f"`{COMMANDS.get(peer, peer)}`",
                str(len(rows)),
                *map(times, figures),
                str(wins),
            ]
        )
    return markdown(header, lines)


def times(ratio: float) -> str:
    """How often as long as ours."""
    digits = 2 if ratio < 3.0 else 1 if ratio < 30.0 else 0
    return f"{ratio:.{digits}f}×"


def milliseconds(seconds: float) -> str:
    """To three figures."""
    shown = 1e3 * seconds
    digits = max(0, 3 - len(str(int(shown)))) if shown >= 1.0 else 3
    return f"{shown:,.{digits}f}"


def group(rows: Sequence[Row]) -> str:
    """A line a case and peer."""
    header = ["", "peer", "ours, ms", "peer, ms", "ratio", "wrong ids of the peer's"]
    lines = []
    for row in rows:
        shown = times(row.ratio)
        lines.append(
            [
                row.case,
                f"`{row.peer}`",
                milliseconds(row.own_seconds),
                milliseconds(row.peer_seconds),
                shown if row.ratio >= 1.0 else f"**{shown}**",
                "" if row.wrong is None else str(row.wrong),
            ]
        )
    return markdown(header, lines)


def groups(results: Results) -> str:
    """A section a group."""
    by_group: dict[str, list[Row]] = {}
    for row in results.rows:
        by_group.setdefault(row.group, []).append(row)
    return "\n\n".join(f"### {name}\n\n{group(rows)}" for name, rows in by_group.items())


def wins(results: Results) -> str:
    """Rows where a peer is faster."""
    lost = sorted((row for row in results.rows if row.ratio < 1.0), key=lambda row: row.ratio)
    if not lost:
        return "None in this run."
    header = ["what", "peer", "ratio"]
    lines = [[f"{row.group}: {row.case}", f"`{row.peer}`", times(row.ratio)] for row in lost]
    return markdown(header, lines)


TABLES = {"setting": setting, "peers": peers, "wins": wins, "groups": groups}


def written(page: str, results: Results) -> str:
    """The page with its tables made anew, between ``<!-- table: NAME -->`` and ``<!-- end -->``."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(block.findall(page)) != 1:
            raise ValueError(f"expected one block '<!-- table: {name} --> … <!-- end -->'")
        page = block.sub(lambda found, t=table: f"{found[1]}\n{t(results)}\n\n{found[2]}", page)
    return page
