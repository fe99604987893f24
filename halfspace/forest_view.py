"""ForestView: answers of whatever forest there is when they are asked for."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from .forest import Forest
from .index import Find, Index, Listed
from .report import Report, Top


class ForestView(Index):
    """An index that answers as the forest in `_forest`, which is read once for each answer."""

    _forest: Forest

    @property
    def _own_ids(self) -> bool:
        return self._forest._own_ids

    @property
    def _weights_ndim(self) -> int:
        return self._forest._weights_ndim

    def __len__(self) -> int:
        return len(self._forest)

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self._forest.dim

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return self._forest.nbytes

    def iter_report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        max_bytes: int = 1 << 28,
        closed: bool = True,
    ) -> Iterator[Report]:
        """Report a large batch piece by piece, all from what there is now; see `Index`."""
        return self._forest.iter_report(normals, offsets, max_bytes=max_bytes, closed=closed)

    def _listed(self, find: Find, limit: int | None) -> Listed:
        return self._forest._listed(find, limit)

    def _counted(self, find: Find) -> np.ndarray:
        return self._forest._counted(find)

    def _occupied(self, find: Find) -> np.ndarray:
        return self._forest._occupied(find)

    def _summed(self, find: Find) -> np.ndarray:
        return self._forest._summed(find)

    def _worked(self, find: Find) -> np.ndarray:
        return self._forest._worked(find)

    def _best(self, normals: np.ndarray, k: int) -> Top:
        return self._forest._best(normals, k)
