"""What a group of queries reads of its heads on a device: rules, in rounds.

1. `Lister.look`: products of all codes, the best key's score, a histogram of products below it.
2. Bars (`bars.py`); keys whose product reaches theirs are listed, and the mass of all others is
   bounded.
3. Scores of the listed keys, weights, and the sums of weighted values come back as one row a query.
4. Queries of which a rule has not enough go on with lower bars.

Queries that are to read all there is, and heads without codes, begin with lists of all keys: then
`reported` is the number of keys they see. The host waits for the device three times a round.
"""

import numpy as np

from halfspace.cuda.runtime import get

from ..coded_keys import SURE
from ..coded_rules import COARSER
from ..exponential import LARGEST_EXPONENT
from ..reading import Cut, Readings
from ..selection import SHARE, TOP_R
from . import averages, bars
from .averages import COUNT, EXTRA, MASS, MISSED, TOP
from .lister import Listed, Lister, Weighed
from .products import AT, LEVEL, WIDEN
from .ranks import keep_best

HUGE_VALUES, SHRUNK = 2.0**980, 2.0**-40
"""Beyond the former, weights are multiplied by the latter: sums of 2^31 products stay finite.

Weights are 1 at most, so such a sum is at most 2^31 times the largest value; what underflows then
is nothing beside the rounding of such values."""


class Reader:
    """Reads what rules ask for.

    Parameters
    ----------
    lister : Lister
    coded : bool
        Keys have codes.
    size : float
        Largest magnitude of a value.
    """

    def __init__(self, lister: Lister, coded: bool, size: float) -> None:
        self._lister, self._asked, self._scratch = lister, lister.asked, lister.scratch
        self._coded, self._shrink = coded, SHRUNK if size > HUGE_VALUES else 1.0
        self._lengths = lister.asked.host_lengths
        self._seeing = np.flatnonzero(self._lengths > 0)

    def softmax(self, cut: Cut, readings: Readings) -> None:
        """Fill the readings of softmax attention."""
        if not self._seeing.size:
            return
        if not self._coded or self._reads_all(cut):
            self._read(self._seeing, None, cut, None, readings)
            return
        views, counts = self._lister.look(bars.FINEST)
        levels = views[:, AT].astype(np.int32)
        if cut.kind == SHARE:
            self._read_shares(cut, views, counts, levels, readings)
            return
        if cut.kind == TOP_R:
            self._reach_ranks(cut, views, counts, levels)
        else:
            bars.threshold_bars(cut, self._asked.host_bounds, views, levels)
        self._read(self._seeing, levels[self._seeing], cut, views, readings)

    def relu(self, offsets: np.ndarray, threshold: float, power: int, readings: Readings) -> None:
        """Fill the readings of ReLU attention."""
        if not self._seeing.size:
            return
        levels = None
        if self._coded:
            self._lister.fill_products()
            levels = np.empty(len(offsets), np.int32)
            bars.relu_bars(self._asked.host_bounds, offsets, levels)
            levels = levels[self._seeing]
        for listed in self._lister.lists(self._seeing, levels):
            weighed = self._weigh_relu(listed, threshold, power)
            rows, c = listed.rows, readings.output.shape[1]
            answers = self._lister.answers(listed, weighed)
            count, unit = answers[:, c + COUNT], answers[:, c + TOP] - threshold
            active = count > 0
            readings.looked[rows], readings.reported[rows] = listed.totals, count
            readings.drift[rows] = answers[:, c + EXTRA]
            readings.mass[rows] = answers[:, c + MASS] / self._shrink
            readings.top[rows[active]] = power * np.log(unit[active])
            readings.output[rows] = _means(answers, c)

    def _reads_all(self, cut: Cut) -> bool:
        if cut.kind == SHARE:
            return not (cut.parameters.any() or cut.left.any())
        return cut.kind == TOP_R and bool((cut.parameters >= self._lengths).all())

    def _read(
        self,
        rows: np.ndarray,
        levels: np.ndarray | None,
        cut: Cut,
        views: np.ndarray | None,
        readings: Readings,
    ) -> None:
        """Read what reaches the bars of some rows, or all they see; enter it."""
        for listed in self._lister.lists(rows, levels):
            weighed = self._weigh(listed, self._kept(listed, cut))
            answers = self._lister.answers(listed, weighed)
            self._enter(listed.rows, answers, cut, views, readings)

    def _enter(
        self,
        rows: np.ndarray,
        answers: np.ndarray,
        cut: Cut,
        views: np.ndarray | None,
        readings: Readings,
    ) -> None:
        """Enter answers of rows. Masses are in units of exp(top)."""
        c, errors = readings.output.shape[1], cut.errors[rows]
        count, top = answers[:, c + COUNT], answers[:, c + TOP]
        readings.looked[rows], readings.reported[rows] = self._lengths[rows], count
        readings.top[rows] = np.where(count > 0, top, -np.inf)
        readings.mass[rows] = answers[:, c + MASS] / self._shrink
        missed = answers[:, c + EXTRA] * np.exp(np.minimum(errors, LARGEST_EXPONENT))
        if views is not None:
            moved = np.exp(np.minimum(views[rows, LEVEL] - top, LARGEST_EXPONENT))
            missed += answers[:, c + MISSED] * views[rows, WIDEN] * moved
        readings.missed[rows] = missed * SURE * SURE
        readings.output[rows] = _means(answers, c)

    def _read_shares(
        self,
        cut: Cut,
        views: np.ndarray,
        counts: np.ndarray,
        levels: np.ndarray,
        readings: Readings,
    ) -> None:
        """Read until the share missed is what the rule allows."""
        places = np.zeros(len(levels), np.int64)
        bars.share_bars(cut, views, counts, places, levels)
        chosen = self._seeing
        while chosen.size:
            self._read(chosen, levels[chosen], cut, views, readings)
            bars.fill_peaks(views, levels, chosen, readings)
            again = np.zeros(chosen.size, np.bool_)
            bars.lower_shares(cut, views, counts, readings, chosen, places, levels, again)
            chosen = chosen[again]

    def _reach_ranks(
        self, cut: Cut, views: np.ndarray, counts: np.ndarray, levels: np.ndarray
    ) -> None:
        """Lower the bars until the best keys, as many as wanted, and all of larger score reach."""
        nats, steps = np.zeros((2, len(levels)))
        found, per_nat = self._lengths == 0, bars.FINEST
        while True:
            bars.rank_distances(cut, views, counts, per_nat, nats, steps, found)
            if found.all():
                break
            per_nat /= COARSER
            counts = self._lister.count_bins(per_nat)
        ranks = np.minimum(cut.parameters, self._lengths)
        chosen = self._seeing
        while chosen.size:
            bars.bars_below(views, nats, levels)
            short = np.zeros(len(levels), np.bool_)
            for listed in self._lister.lists(chosen, levels[chosen]):
                rows = listed.rows
                enough = listed.totals >= ranks[rows]
                last = get(self._rank(listed, cut)[1], self._scratch.stream)
                below = np.where(ranks[rows] > 0, views[rows, LEVEL] - last + cut.errors[rows], 0.0)
                nats[rows] = np.where(enough, below, nats[rows] + steps[rows])
                short[rows] = ~enough
            steps *= 2.0
            chosen = chosen[short[chosen]]
        bars.bars_below(views, nats, levels)

    def _rank(self, listed: Listed, cut: Cut) -> tuple[object, object]:
        """Which of the listed keys are among the best of each row; the score of the last, (k,)."""
        kept = self._scratch.take("kept", listed.slots.shape, np.int8)
        ranks = np.minimum(cut.parameters[listed.rows].astype(np.int64), listed.totals)
        some = listed.starts, listed.tops, listed.slots, listed.scores
        return kept, keep_best(listed.each, *some, ranks, kept, self._scratch)

    def _kept(self, listed: Listed, cut: Cut) -> object:
        """Which of the listed keys a rule keeps; an empty array for all."""
        scratch, asked = self._scratch, self._asked
        if cut.kind == SHARE:
            return scratch.take("all kept", (0,), np.int8)
        if cut.kind == TOP_R:
            return self._rank(listed, cut)[0]
        kept = scratch.take("kept", listed.slots.shape, np.int8)
        averages.keep_inside(
            scratch.stream,
            *listed.each,
            self._lister.held.keys,
            asked.head,
            asked.m,
            asked.queries,
            listed.chosen,
            self._lister.scale,
            listed.starts,
            listed.slots,
            listed.scores,
            scratch.copy("offsets", cut.offsets),
            asked.errors,
            kept,
        )
        return kept

    def _weigh(self, listed: Listed, kept: object) -> Weighed:
        scratch = self._scratch
        weights = scratch.take("weights", listed.slots.shape, np.float64)
        averages.weigh(
            scratch.stream,
            *listed.each,
            listed.starts,
            listed.tops,
            self._shrink,
            kept,
            listed.scores,
            weights,
        )
        return Weighed(weights, kept)

    def _weigh_relu(self, listed: Listed, threshold: float, power: int) -> Weighed:
        scratch = self._scratch
        weights = scratch.take("weights", listed.slots.shape, np.float64)
        kept = scratch.take("kept", listed.slots.shape, np.int8)
        averages.weigh_relu(
            scratch.stream,
            *listed.each,
            listed.chosen,
            self._asked.errors,
            listed.starts,
            listed.tops,
            threshold,
            power,
            self._shrink,
            kept,
            listed.scores,
            weights,
        )
        return Weighed(weights, kept)


def _means(answers: np.ndarray, c: int) -> np.ndarray:
    """Weighted means (k, c) of values; zero where nothing was read."""
    mass = answers[:, c + MASS, None]
    return np.divide(answers[:, :c], mass, out=np.zeros((len(answers), c)), where=mass > 0.0)
