"""A part of a grid whose pixels lie, to the last bit, where the whole grid has them."""

from __future__ import annotations

from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

__all__ = ["Cut", "whole_of"]


class Cut(GeoBox):
    """A window of a grid that knows the grid.

    A window of a window of a grid has corners that are rounded twice, and GDAL's warp gives other pixels on it. This
    one cuts its own windows out of the whole grid, so that reads of them are those of the whole grid.

    Parameters
    ----------
    whole : GeoBox
        The grid.
    rows, columns : slice
        The window, in pixels of the grid; with ends.

    Attributes
    ----------
    whole : GeoBox
        The grid.
    corner : (int, int)
        Row and column of the first pixel.
    """

    __slots__ = ("corner", "whole")

    def __init__(self, whole: GeoBox, rows: slice, columns: slice) -> None:
        affine = whole.affine * Affine.translation(columns.start, rows.start)
        super().__init__((rows.stop - rows.start, columns.stop - columns.start), affine, whole.crs)
        self.whole, self.corner = whole, (rows.start, columns.start)

    def __getitem__(self, roi: Any) -> GeoBox:
        if not (isinstance(roi, tuple) and len(roi) == 2 and all(isinstance(part, slice) for part in roi)):
            return super().__getitem__(roi)
        rows, columns = (
            range(*part.indices(size)) for part, size in zip(roi, (self.shape[0], self.shape[1]), strict=True)
        )
        first, left = self.corner
        return self.whole[
            first + rows.start : first + max(rows.stop, rows.start),
            left + columns.start : left + max(columns.stop, columns.start),
        ]

    def pad(self, padx: int, pady: int | None = None) -> GeoBox:
        """Grow by pixels on each side; what it then cuts is cut from the grid grown likewise."""
        pady = padx if pady is None else pady
        first, left = self.corner
        rows = slice(first, first + self.shape[0] + 2 * pady)
        return Cut(self.whole.pad(padx, pady), rows, slice(left, left + self.shape[1] + 2 * padx))

    def __reduce__(self) -> tuple[Any, ...]:
        (first, left), (height, width) = self.corner, (self.shape[0], self.shape[1])
        return Cut, (self.whole, slice(first, first + height), slice(left, left + width))


def whole_of(geobox: GeoBox) -> GeoBox:
    """The grid that a window was cut from; any other grid is whole itself."""
    return geobox.whole if isinstance(geobox, Cut) else geobox
