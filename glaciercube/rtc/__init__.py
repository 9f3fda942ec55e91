"""Raw Sentinel-1 made usable: terrain-corrected gamma nought from GRD products (the extra ``sarsen``)."""

from __future__ import annotations

from glaciercube.rtc.publish import make_rtc
from glaciercube.rtc.terrain_correct import RtcOptions, terrain_correct

__all__ = ["RtcOptions", "make_rtc", "terrain_correct"]
