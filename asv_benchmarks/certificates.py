"""Certificates on heads of trained models: ``python -m asv_benchmarks.certificates``.

Every query of the packaged heads, and of those of a capture, is answered under every rule, and held
against softmax attention in float64: how many errors are beyond their bound (none may be, but for
`Sampled` a share of delta), how tight bounds are, and what was read for it. Exits 1 where a bound
is broken that may not be.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

import attention
from attention import data
from attention.rules import Rule

from . import sizes
from .tables import show

BLOCK = 48
"""Queries that are answered at a time: so few that none are read in whole by matrix products."""

REFERENCE_ERROR = 1e-12
"""Room for what float64 rounds of the reference, for values of about 1."""

SIGNIFICANT = 1e-3
"""Probability below which so many broken bounds are no chance."""

RULES: tuple[Rule, ...] = (
    attention.TopR(),
    attention.Mass(0.99),
    attention.Threshold(0.0),
    attention.Error(1e-2),
    attention.Error(1e-3),
    attention.Sampled(0.05, 1e-2, seed=0),
    attention.Sampled(0.02, 1e-2, seed=0),
)


class Head(NamedTuple):
    """A head, float32."""

    name: str
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


class Tally(NamedTuple):
    """What came of all queries under a rule, by query."""

    error: np.ndarray  # largest of any coordinate
    bound: np.ndarray
    relative: np.ndarray  # length of the error over that of the output
    read: np.ndarray  # share of the keys
    sampled: np.ndarray  # bool, whether the bound holds with some probability only

    @property
    def broken(self) -> np.ndarray:
        """Whether the error is beyond the bound."""
        return self.error > self.bound + REFERENCE_ERROR


def heads(capture: str | None, most: int) -> Iterator[Head]:
    """The packaged heads, and all of a file with arrays q_L_H, k_L_H, v_L_H."""
    for name in data.heads():
        head = data.load(name)
        yield Head(name, head.query[:most], head.key, head.value)
    if capture is None:
        return
    with np.load(capture) as file:
        for name in sorted(file.files):
            if name.startswith("k_"):
                query, key, value = (file[f"{c}{name[1:]}"].astype(np.float32) for c in "qkv")
                yield Head(name[2:], query[:most], key, value)


def _exact(head: Head, query: np.ndarray) -> np.ndarray:
    scores = query.astype(np.float64) @ head.key.T.astype(np.float64) / np.sqrt(query.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ head.value.astype(np.float64) / weights.sum(axis=1, keepdims=True)


def tallies(head: Head) -> list[Tally]:
    """Answer all queries of a head under all rules."""
    decoder = attention.Decoder(head.key, head.value)
    found: list[list[tuple]] = [[] for _ in RULES]
    for first in range(0, len(head.query), BLOCK):
        query = head.query[first : first + BLOCK]
        exact = _exact(head, query)
        for rule, parts in zip(RULES, found, strict=True):
            got = decoder.softmax(query, rule, dtype=np.float64)
            away = got.output - exact
            parts.append(
                (
                    np.abs(away).max(axis=1),
                    got.bound,
                    np.linalg.norm(away, axis=1) / np.linalg.norm(exact, axis=1),
                    got.reported / len(head.key),
                    np.broadcast_to(False if got.sampled is None else got.sampled, got.bound.shape),
                )
            )
    return [Tally(*map(np.concatenate, zip(*parts, strict=True))) for parts in found]


def _row(name: str, rule: Rule, tally: Tally) -> list[str]:
    tight = np.median(tally.bound / np.maximum(tally.error, 1e-300))
    return [
        f"{name}, {rule}",
        f"{np.median(tally.read):.1%}",
        f"{np.median(tally.error):.1e}",
        f"{np.median(tally.relative):.1e}",
        f"{tight:.1f}",
        f"{len(tally.error):,}",
        f"{tally.broken.sum()}",
    ]


def verdict(rule: Rule, tally: Tally) -> bool:
    """Whether bounds hold as promised."""
    certain = tally.broken & ~tally.sampled
    drawn, failed = int(tally.sampled.sum()), int((tally.broken & tally.sampled).sum())
    if certain.any():
        return False
    if not drawn:
        return True
    test = binomtest(failed, drawn, rule.delta, alternative="greater")
    return bool(test.pvalue >= SIGNIFICANT)


def show_certificates(capture: str | None, most: int) -> bool:
    """Print a table for every head and the sums over all; whether all bounds hold."""
    rows, everything = [], [[] for _ in RULES]
    for head in heads(capture, most):
        for rule, parts, tally in zip(RULES, everything, tallies(head), strict=True):
            rows.append(_row(head.name, rule, tally))
            parts.append(tally)
    whole = [Tally(*map(np.concatenate, zip(*parts, strict=True))) for parts in everything]
    for rule, tally in zip(RULES, whole, strict=True):
        rows.append(_row("all", rule, tally))
    header = ["", "read", "error", "relative", "bound / error", "pairs", "broken"]
    show("Bounds against true errors: medians", header, rows)
    certain = sum(int((~tally.sampled).sum()) for tally in whole)
    print(
        f"{certain:,} pairs with certain bounds, {sum(int(t.sampled.sum()) for t in whole):,} not"
    )
    return all(map(verdict, RULES, whole))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--capture", metavar="FILE.npz", help="arrays q_L_H, k_L_H, v_L_H")
    parser.add_argument("--queries", type=int, default=1 << 20, help="of a head, at most")
    options = parser.parse_args()
    most = max(1, round(options.queries * min(1.0, sizes.scale())))
    return int(not show_certificates(options.capture, most))


if __name__ == "__main__":
    raise SystemExit(main())
