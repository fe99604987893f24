"""What each structure finds for half-spaces on the device: lanes inside, and lanes left open.

A finder holds the arrays of a structure that its kernels read. They all leave two sets of bits by
slot (`words.py`), and what is open in them is settled by one kernel for all (`scoring.settle`).
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..cascade_stages import CascadeArrays, make_targets
from ..code_filter import bar_of
from ..jit import kernel
from ..tiles import CHUNK_FLOATS, TILE, Tiles, frozen
from ..tree import BoundedTree
from .codes import refine, test_codes
from .nodes import LEAST_SQUARES, test_nodes
from .queries import KIND, LEVEL, Ready
from .runtime import by_tiles, empty, get, line, put
from .scoring import mask_tiles, settle, shared_by
from .scratch import Scratch
from .words import WORD, words_of

if TYPE_CHECKING:
    from ..index import Index


class DeviceTiles(NamedTuple):
    """`Tiles` on the device."""

    data: object  # (tiles, d, 64)
    norms: object  # (tiles,) float64
    ranks: object  # (n,) int32
    count: int
    in_order: bool  # a slot is its rank


class Found(NamedTuple):
    """Where the answers of a group of queries go, and what a query wants of them."""

    inside: object  # (m, words) uint32
    unsettled: object  # (m, words) uint32
    stop: bool  # at a query's first point
    found: object  # (m,) int32, queries that have one
    counting: bool
    work: object  # (m, 3) int64


def put_tiles(tiles: Tiles) -> DeviceTiles:
    """Copy tiles to the device, whatever they are a view of, in bounded room."""
    data = empty(tiles.data.shape, tiles.data.dtype)
    step = max(1, CHUNK_FLOATS // (TILE * tiles.data.shape[1]))
    for first in range(0, len(tiles.data), step):
        part = np.ascontiguousarray(tiles.data[first : first + step])
        data[first : first + step].copy_to_device(part)
    in_order = np.array_equal(tiles.ranks, np.arange(tiles.count, dtype=np.int32))
    return DeviceTiles(data, put(tiles.norms), put(tiles.ranks), tiles.count, in_order)


class Finder(Protocol):
    """What every structure answers."""

    tiles: DeviceTiles
    arrays: list

    def find(self, ready: Ready, to: Found, scratch: Scratch) -> None:
        """Add what is inside half-spaces, and what is left open, to `to`."""

    def settle(self, ready: Ready, to: Found, stream: object) -> None:
        """Settle what `find` left open, exactly."""


class ScanFinder:
    """Every tile for every query."""

    def __init__(self, structure: NamedTuple) -> None:
        self.tiles = put_tiles(structure.tiles)

    def find(self, ready: Ready, to: Found, scratch: Scratch) -> None:
        """Add what is inside half-spaces, and what is left open, to `to`."""
        none = scratch.take("no tiles", (0, 0), np.uint32)
        self._mask(ready, to, none, none, scratch.stream)

    def _mask(self, ready: Ready, to: Found, opened: object, whole: object, stream: object) -> None:
        tiles, shared = self.tiles, shared_by(ready.size)
        grid, block = by_tiles(len(tiles.norms), -(-ready.size // shared))
        mask_tiles[shared](
            stream,
            grid,
            block,
            tiles.data,
            tiles.norms,
            tiles.count,
            ready.narrows,
            ready.scalars,
            ready.signs,
            opened,
            whole,
            to.stop,
            to.found,
            to.counting,
            to.work,
            to.inside,
            to.unsettled,
        )

    @property
    def arrays(self) -> list:
        """All arrays that it holds on the device."""
        held = (*self.tiles[:3], *vars(self).values())
        nested = (part if isinstance(part, tuple) else (part,) for part in held)
        return [array for part in nested for array in part if hasattr(array, "copy_to_host")]

    def settle(self, ready: Ready, to: Found, stream: object) -> None:
        """Settle what `find` left open, exactly."""
        settle(
            stream,
            *line(to.unsettled.size),
            self.tiles.data,
            ready.normals,
            ready.scalars,
            ready.signs,
            to.stop,
            to.found,
            to.counting,
            to.work,
            to.inside,
            to.unsettled,
        )


class TreeFinder(ScanFinder):
    """Nodes of a bounded tree, then the tiles that straddle the plane."""

    def __init__(self, structure: BoundedTree) -> None:
        super().__init__(structure)
        self._bounds = tuple(
            put(array)
            for array in (
                structure.centres,
                structure.frames,
                structure.reaches,
                structure.nodes.last,
            )
        )
        self._levels = [int(first) for first in structure.levels]

    def find(self, ready: Ready, to: Found, scratch: Scratch) -> None:
        """Add what is inside half-spaces, and what is left open, to `to`."""
        shape = ready.size, len(self._bounds[3]) // WORD
        whole, straddling = (
            scratch.zeros(name, shape, np.uint32) for name in ("whole nodes", "straddling nodes")
        )
        levels = self._levels
        for level in range(len(levels) - 2, -1, -1):
            first, blocks = levels[level], levels[level + 1] - levels[level]
            root = level == len(levels) - 2
            test_nodes(
                scratch.stream,
                *by_tiles(blocks, ready.size),
                *self._bounds,
                ready.narrows,
                ready.scalars,
                ready.signs,
                first,
                blocks,
                -1 if root else levels[level + 1],
                LEAST_SQUARES[self.tiles.data.dtype.itemsize],
                to.counting,
                to.work,
                whole,
                straddling,
            )
        self._mask(ready, to, straddling, whole, scratch.stream)


@kernel
def _set_bars(scales, levels, bars, head_bars):
    for q in range(levels.size):
        bars[q] = bar_of(scales[q, 0], scales[q, 1], levels[q])
        head_bars[q] = bar_of(scales[q, 2], scales[q, 3], levels[q])


class CascadeFinder(ScanFinder):
    """Heads of tiles, leading codes, row codes, then the points' floats."""

    def __init__(self, structure: CascadeArrays) -> None:
        super().__init__(structure)
        self._bits = structure.leading.bits
        self._heads, self._codes = (
            put(codes.view(np.uint32)) for codes in (structure.heads.codes, structure.leading.codes)
        )
        self._rows = put(structure.rows.codes)
        self._forced, self._always, self._bare = (
            put(lanes.view(np.uint32).reshape(-1, TILE // WORD))
            for lanes in (structure.forced, structure.always, structure.bare)
        )
        self._sketch = _sketch(structure)

    def find(self, ready: Ready, to: Found, scratch: Scratch) -> None:
        """Add what is inside half-spaces, and what is left open, to `to`."""
        if not len(self.tiles.norms):
            return
        m, stream = ready.size, scratch.stream
        targets = make_targets(self._sketch, ready.host_normals, np.zeros(m), True, m)
        _set_bars(targets.scales, ready.host_scalars[:, LEVEL], targets.bars, targets.head_bars)
        none = scratch.take("no tiles", (0, 0), np.uint32)
        opened = scratch.zeros("open tiles", (m, words_of(len(self.tiles.norms))), np.uint32)
        test = test_codes[shared_by(m), self._bits]
        grouped = -(-m // shared_by(m))
        test(
            stream,
            *by_tiles(len(self._heads), grouped),
            self._heads,
            len(self.tiles.norms),
            scratch.copy("head weights", targets.heads[:m].view(np.int32)),
            scratch.copy("head bars", targets.head_bars[:m]),
            ready.signs,
            none,
            self._forced,
            opened,
        )
        passing = scratch.zeros("passing", to.inside.shape, np.uint32)
        test(
            stream,
            *by_tiles(len(self._codes), grouped),
            self._codes,
            self.tiles.count,
            scratch.copy("weights", targets.leading[:m].view(np.int32)),
            scratch.copy("bars", targets.bars[:m]),
            ready.signs,
            opened,
            self._always,
            passing,
        )
        self._count(ready, to, opened, stream)
        refine(
            stream,
            *line(WORD * passing.size),
            self.tiles.data,
            self.tiles.norms,
            self.tiles.count,
            ready.narrows,
            ready.scalars,
            ready.signs,
            self._rows,
            scratch.copy("row weights", targets.rows[:m]),
            scratch.copy("ranges", targets.ranges[:m]),
            self._bare,
            to.stop,
            to.found,
            passing,
            to.inside,
            to.unsettled,
        )

    def _count(self, ready: Ready, to: Found, opened: object, stream: object) -> None:
        """Count heads tested, and points of open tiles, all in whole tiles."""
        if not to.counting:
            return
        regular = ready.host_signs[:, KIND] == 0
        work = get(to.work, stream)
        work[regular, 0] += len(self.tiles.norms)
        bits = np.unpackbits(get(opened, stream).view(np.uint8), axis=1).sum(axis=1, dtype=np.int64)
        work[regular, 1] += np.minimum(TILE * bits, self.tiles.count)[regular]
        to.work.copy_to_device(work, stream=stream)


def _sketch(structure: CascadeArrays) -> CascadeArrays:
    """All of a cascade that `make_targets` reads, and a tile of the rest."""

    def first(array: np.ndarray, rows: int) -> np.ndarray:
        return frozen(array[:rows].copy(order="K"))

    tiles, leading, rows, heads = (
        structure.tiles,
        structure.leading,
        structure.rows,
        structure.heads,
    )
    return structure._replace(
        tiles=Tiles(first(tiles.data, 1), first(tiles.norms, 1), first(tiles.ranks, TILE)),
        points=first(structure.points, TILE),
        forced=first(structure.forced, 1),
        always=first(structure.always, 1),
        bare=first(structure.bare, 1),
        heads=heads._replace(codes=first(heads.codes, 1)),
        leading=leading._replace(codes=first(leading.codes, 1)),
        rows=rows._replace(codes=first(rows.codes, 1)),
    )


def finder_of(index: "Index") -> Finder:
    """Copy what answers for an index to the device; of conflict lists, the tree under them."""
    structure = getattr(index.structure, "tree", index.structure)
    kinds = {CascadeArrays: CascadeFinder, BoundedTree: TreeFinder}
    return kinds.get(type(structure), ScanFinder)(structure)
