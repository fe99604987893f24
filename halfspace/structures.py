"""Structures: all there are to choose from, one entry each."""

from collections.abc import Callable
from typing import NamedTuple

from . import forecast
from .cascade import Cascade
from .cost_model import Load
from .forecast import Forecast, Limits, Sample
from .kd_tree import KDTree
from .partition_tree import PartitionTree
from .scan import Scan
from .shallow_cuttings import MOST_DIMENSIONS, ShallowCuttings
from .static_index import StaticIndex


class Structure(NamedTuple):
    """What the planner knows of a structure."""

    make: Callable[..., StaticIndex]
    options: tuple[str, ...] = ()  # of `build`, passed on
    most_dimensions: int | None = None
    least: Callable[[Load], Forecast] = forecast.scan  # what it costs at least
    sampled: Callable[[Load, Sample, int, Limits], Forecast | None] | None = None
    unsampled: Callable[[Load], Forecast] | None = None  # for where samples cost too much
    sampling: float = 0.0  # nanoseconds a row sampled, for each of d + 5
    margin: float = 1.0  # it must promise so many times less than what is surer


STRUCTURES = {
    "scan": Structure(Scan),
    "kd_tree": Structure(
        KDTree,
        least=forecast.least_kd_tree,
        sampled=forecast.kd_tree,
        unsampled=forecast.expected_kd_tree,
        sampling=130.0,
    ),
    "partition_tree": Structure(
        PartitionTree,
        options=("queries",),
        least=forecast.least_partition_tree,
        sampled=forecast.partition_tree,
        sampling=280.0,
        margin=1.1,
    ),
    "shallow_cuttings": Structure(
        ShallowCuttings,
        options=("memory", "expected_count"),
        most_dimensions=MOST_DIMENSIONS,
        least=forecast.least_shallow_cuttings,
        sampled=forecast.shallow_cuttings,
        sampling=850.0,
        margin=1.1,
    ),
    "cascade": Structure(
        Cascade,
        options=("queries", "expected_count"),
        least=forecast.least_cascade,
        sampled=forecast.cascade,
        sampling=110.0,
        margin=1.05,
    ),
}
"""Candidates, in the order in which they are tried."""
