"""Where: a named place, its outlines, and the metric grid on which everything is computed."""

from glaciercube.region.bounds import Bounds, footprint_meets, geographic_bounds, geographic_footprint, split_bounds
from glaciercube.region.crs import choose_crs, crs_name
from glaciercube.region.cut import Cut, whole_of
from glaciercube.region.outlines import read_outlines
from glaciercube.region.place import Region

__all__ = [
    "Bounds",
    "Cut",
    "Region",
    "choose_crs",
    "crs_name",
    "footprint_meets",
    "geographic_bounds",
    "geographic_footprint",
    "read_outlines",
    "split_bounds",
    "whole_of",
]
