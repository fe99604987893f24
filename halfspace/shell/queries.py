"""Queries of the command line: normals and offsets from options, or from a file."""

from pathlib import Path

import numpy as np

from ..inputs import Queries, as_normals, as_queries
from ..point_files import NpzFile, UnreadablePoints, open_points


def parsed_normal(text: str) -> list[float]:
    """Numbers between commas; ValueError where one is none."""
    return [float(field) for field in text.split(",")]


def queries_of_options(normals: list[list[float]], offsets: list[float], dim: int) -> Queries:
    """Half-spaces given one by one; one offset, or one normal, may serve for all."""
    rows = _as_rows(normals, dim)
    levels = np.array(offsets)
    if len(rows) > 1 and len(levels) == 1:
        levels = levels.repeat(len(rows))
    if len(rows) == 1 and len(levels) > 1:
        rows = rows.repeat(len(levels), axis=0)
    return as_queries(rows, levels, dim)


def normals_of_options(normals: list[list[float]], dim: int) -> np.ndarray:
    """Normals (m, dim) given one by one."""
    return as_normals(_as_rows(normals, dim), dim)[0]


def _as_rows(normals: list[list[float]], dim: int) -> np.ndarray:
    for row in normals:
        if len(row) != dim:
            raise ValueError(f"normal: expected {dim} numbers, got {len(row)}")
    return np.array(normals).reshape(-1, dim)


def queries_of_file(path: Path, dim: int) -> Queries:
    """Half-spaces of a file: rows of d + 1 numbers, or an archive of normals and offsets."""
    if path.suffix.lower() == ".npz":
        rows, levels = _normals(path, dim), _archived_offsets(path)
    else:
        table = _table(path, dim + 1, "a normal and an offset")
        rows, levels = table[:, :-1], table[:, -1]
    try:
        return as_queries(rows, levels, dim)
    except ValueError as wrong:
        raise UnreadablePoints(f"{path}: {wrong}") from wrong


def normals_of_file(path: Path, dim: int) -> np.ndarray:
    """Normals (m, dim) of a file: rows of d numbers, or an archive of normals."""
    rows = _normals(path, dim) if path.suffix.lower() == ".npz" else _table(path, dim, "a normal")
    return as_normals(rows, dim)[0]


def _table(path: Path, columns: int, what: str) -> np.ndarray:
    file = open_points(path)
    if file.dim != columns:
        raise UnreadablePoints(f"{path}: expected {columns} columns, {what}, got {file.dim}")
    return file.points().astype(np.float64)


def _normals(path: Path, dim: int) -> np.ndarray:
    file = NpzFile(path, "normals")
    if file.dim != dim:
        raise UnreadablePoints(f"{path}: expected normals of {dim} columns, got {file.dim}")
    return file.points().astype(np.float64)


def _archived_offsets(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        if "offsets" not in archive:
            raise UnreadablePoints(f"{path}: expected an array `offsets` beside `normals`")
        return archive["offsets"]
