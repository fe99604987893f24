"""Points in files: .npy, .npz, .csv and .parquet, read in chunks of bounded memory.

A file is a matrix, one row a point. Only one chunk of it is held at a time, whatever its size: a
.npy file is mapped chunk by chunk, a member of an .npz is unpacked as it is read, lines of a .csv
are parsed in groups, and .parquet comes in batches (by pyarrow, the extra ``parquet``).
"""

import csv
import io
import itertools
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np

from .inputs import as_points, as_real

CHUNK_BYTES = 1 << 25
"""Bytes of points in a chunk where nobody says."""

LINES = 1 << 16
"""Lines of text that are parsed at a time."""


class UnreadablePoints(ValueError):
    """A file does not hold points as expected. The message names the file and what came.

    Examples
    --------
    >>> from halfspace.point_files import UnreadablePoints, open_points
    >>> try:
    ...     open_points("points.txt")
    ... except UnreadablePoints as error:
    ...     print(error)
    points.txt: expected a name that ends in .npy, .npz, .csv, .parquet
    """


class Chunk(NamedTuple):
    """Consecutive points of a file."""

    rows: np.ndarray  # (n, d) float32 or float64, finite
    first: int  # row of the first
    share: float  # of the file, read so far; 0 where nobody knows


@contextmanager
def _named(path: Path, first: int = 0) -> Iterator[None]:
    """Have errors say which file it is, and which row rows are counted from."""
    try:
        yield
    except UnreadablePoints:
        raise
    except (TypeError, ValueError, EOFError, zipfile.BadZipFile) as wrong:
        after = f" (counted from row {first})" if first else ""
        raise UnreadablePoints(f"{path}: {wrong}{after}") from wrong


class PointFile(ABC):
    """A file of points.

    Attributes
    ----------
    path : Path
    dim : int
        Dimension d.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from halfspace.point_files import open_points
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     np.save(f"{directory}/points.npy", np.eye(2))
    ...     file = open_points(f"{directory}/points.npy")
    ...     [chunk.rows.tolist() for chunk in file.chunks()]
    [[[1.0, 0.0], [0.0, 1.0]]]
    """

    takes: ClassVar[tuple[str, ...]] = ()
    """Which of `columns` and `array` it knows."""

    path: Path
    dim: int
    itemsize: int = 8

    @abstractmethod
    def _blocks(self, rows: int) -> Iterator[tuple[np.ndarray, float]]:
        """At most so many rows at a time, and the share of the file that is read after them."""

    def chunks(self, nbytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
        """Read the file from its start, so many bytes of points at a time.

        Raises
        ------
        UnreadablePoints
            Not numbers, a NaN or an infinity (the row is named), lines of different lengths.

        Examples
        --------
        >>> import tempfile, numpy as np
        >>> from halfspace.point_files import open_points
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     np.save(f"{directory}/points.npy", np.array([[1.0, 2.0], [3.0, 4.0]]))
        ...     file = open_points(f"{directory}/points.npy")
        ...     [(chunk.first, chunk.rows.tolist()) for chunk in file.chunks(nbytes=16)]
        [(0, [[1.0, 2.0]]), (1, [[3.0, 4.0]])]
        """
        first, blocks = 0, self._blocks(max(1, nbytes // (self.dim * self.itemsize)))
        while True:
            with _named(self.path, first):
                found = next(blocks, None)
                if found is None:
                    return
                rows = as_points(found[0])
            yield Chunk(rows, first, found[1])
            first += len(rows)

    def points(self) -> np.ndarray:
        """All points (n, d). Mapped into memory where that can be."""
        chunks = [chunk.rows for chunk in self.chunks()]
        return np.concatenate([np.empty((0, self.dim), np.float32), *chunks])


def _check_matrix(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"expected shape (n, d) with d >= 1, got shape {shape}")


class NpyFile(PointFile):
    """An array as `numpy.save` writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _named(path):
            array = self._mapped()
            _check_matrix(array.shape)
        self.dim, self.itemsize = array.shape[1], array.itemsize

    def _mapped(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _blocks(self, rows: int) -> Iterator[tuple[np.ndarray, float]]:
        count = len(self._mapped())
        for first in range(0, count, rows):
            last = min(first + rows, count)
            # Mapped anew, so that pages that were read do not add up.
            yield np.asarray(self._mapped()[first:last]), last / count

    def points(self) -> np.ndarray:
        """All points (n, d), mapped into memory."""
        with _named(self.path):
            return as_points(np.asarray(self._mapped()))


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzFile(PointFile):
    """One array of an archive as `numpy.savez` or `numpy.savez_compressed` writes it."""

    takes = ("array",)

    def __init__(self, path: Path, array: str | None = None) -> None:
        self.path = path
        with _named(path), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if array is None and len(names) != 1:
                raise ValueError(f"array: expected one of {', '.join(names)} by name, got none")
            self._name = names[0] if array is None else array
            if self._name not in names:
                raise ValueError(f"array: expected one of {', '.join(names)}, got {array!r}")
            with archive.open(f"{self._name}.npy") as member:
                shape, _, dtype = self._header(member)
        self._count, self.dim, self.itemsize = *shape, dtype.itemsize

    @staticmethod
    def _header(member: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"expected an array of numbers, got .npy version {version}")
        shape, by_columns, dtype = _HEADERS[version](member)
        _check_matrix(shape)
        if dtype.hasobject:
            raise ValueError(f"expected an array of numbers, got {dtype}")
        return shape, by_columns, dtype

    def _blocks(self, rows: int) -> Iterator[tuple[np.ndarray, float]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self._name}.npy") as member:
            (count, d), by_columns, dtype = self._header(member)
            # Columns one after another: every row needs all of the file.
            step = count if by_columns else rows
            for first in range(0, count, max(1, step)):
                size = min(step, count - first)
                data = member.read(size * d * dtype.itemsize)
                if len(data) < size * d * dtype.itemsize:
                    raise ValueError(f"expected {count} rows, got a file that ends before")
                block = np.frombuffer(data, dtype)
                shaped = block.reshape(d, size).T if by_columns else block.reshape(size, d)
                yield shaped, (first + size) / count


def _chosen(columns: Sequence[str], names: Sequence[str]) -> list[int]:
    """Places of columns that are asked for by name."""
    for name in columns:
        if name not in names:
            raise ValueError(f"columns: expected some of {', '.join(names)}, got {name!r}")
    return [names.index(name) for name in columns]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


class CsvFile(PointFile):
    """Numbers between commas, a line a point.

    The first line holds names where any of its fields is not a number; else columns are called
    0, 1, … . A pipe can be read once.
    """

    takes = ("columns",)

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path, self._raw = path, None
        with _named(path):
            self._start()
            if not self._head:
                raise ValueError("expected a line of numbers or names, got an empty file")
            fields = [field.strip() for field in next(csv.reader([self._head]))]
            self._titled = not all(map(_is_number, fields))
            names = fields if self._titled else [str(i) for i in range(len(fields))]
            self._places = None if columns is None else _chosen(columns, names)
        self.dim = len(names if self._places is None else self._places)

    def _start(self) -> None:
        self._lines = self._read_lines()
        self._head = next(self._lines, "")

    def _read_lines(self) -> Iterator[str]:
        with (
            open(self.path, "rb") as self._raw,
            io.TextIOWrapper(self._raw, encoding="utf-8-sig") as text,
        ):
            yield from (line for line in text if not line.isspace())

    def _blocks(self, rows: int) -> Iterator[tuple[np.ndarray, float]]:
        if self._lines is None:
            self._start()
        lines = self._lines if self._titled else itertools.chain([self._head], self._lines)
        self._lines = None
        while blocks := list(self._parsed(lines, rows)):
            yield np.concatenate(blocks), self._share()

    def _share(self) -> float:
        if self._raw.closed:
            return 1.0
        # A pipe has neither a size nor a position.
        size = os.fstat(self._raw.fileno()).st_size
        return min(1.0, self._raw.tell() / size) if size else 0.0

    def _parsed(self, lines: Iterator[str], rows: int) -> Iterator[np.ndarray]:
        for first in range(0, rows, LINES):
            text = list(itertools.islice(lines, min(LINES, rows - first)))
            if not text:
                return
            yield np.loadtxt(
                text, delimiter=",", comments=None, quotechar='"', usecols=self._places, ndmin=2
            )


class ParquetFile(PointFile):
    """Columns of numbers. Needs pyarrow."""

    takes = ("columns",)

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self.path = path
        with _named(path), self._opened() as file:
            names = file.schema_arrow.names
            self._names = names if columns is None else [names[i] for i in _chosen(columns, names)]
            self._count = file.metadata.num_rows
            _check_matrix((self._count, len(self._names)))
        self.dim = len(self._names)

    def _opened(self):
        try:
            from pyarrow.parquet import ParquetFile as File
        except ImportError as missing:
            raise UnreadablePoints(
                f"{self.path}: expected pyarrow (the extra `parquet`) to be installed, got none"
            ) from missing
        return File(self.path)

    def _blocks(self, rows: int) -> Iterator[tuple[np.ndarray, float]]:
        done = 0
        with self._opened() as file:
            for batch in file.iter_batches(rows, columns=self._names):
                done += len(batch)
                # Each column is widened on its own: together, numpy would round large integers.
                columns = [
                    as_real(batch.column(name).to_numpy(zero_copy_only=False), name)
                    for name in self._names
                ]
                yield np.column_stack(columns), done / self._count


KINDS = {".npy": NpyFile, ".npz": NpzFile, ".csv": CsvFile, ".parquet": ParquetFile}
"""By how the name ends."""


def open_points(
    path: str | os.PathLike,
    *,
    columns: Sequence[str] | None = None,
    array: str | None = None,
) -> PointFile:
    """Open a file of points, one row each.

    Parameters
    ----------
    path : str or path-like
        Ends in .npy, .npz, .csv or .parquet.
    columns : sequence of str, optional
        Of a .csv or .parquet file, in this order; all if not given.
    array : str, optional
        Name of the array in an .npz file; need not be given where there is one.

    Returns
    -------
    PointFile
        Its `chunks()` read it.

    Raises
    ------
    OSError
        The file cannot be opened.
    UnreadablePoints
        Another kind of file; no matrix of numbers; no such column or array.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from halfspace.point_files import open_points
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     np.save(f"{directory}/points.npy", np.eye(3))
    ...     file = open_points(f"{directory}/points.npy")
    ...     file.dim, [(chunk.first, len(chunk.rows)) for chunk in file.chunks(nbytes=48)]
    (3, [(0, 2), (2, 1)])
    """
    where = Path(path)
    kind = KINDS.get(where.suffix.lower())
    if kind is None:
        raise UnreadablePoints(f"{where}: expected a name that ends in {', '.join(KINDS)}")
    options = {"columns": columns, "array": array}
    for name, value in options.items():
        if value is not None and name not in kind.takes:
            raise UnreadablePoints(f"{where}: expected no {name} for {where.suffix}, got {value}")
    # Before a library says it in its own way.
    os.stat(where)
    return kind(where, **{name: options[name] for name in kind.takes})
