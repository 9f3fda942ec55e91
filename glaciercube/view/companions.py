"""A picture of what is masked on every date, and of the radar image that goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from glaciercube.cube.masks import FLAG_CLOUD, FLAG_OBSERVED, FLAG_RECOVERED, FLAG_SHADOW
from glaciercube.errors import CubeError
from glaciercube.view.canvas import empty_figure, extent_of, without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_companions"]

_MASKS: Final = (
    ("called cloud", FLAG_CLOUD, "#e7298a"),
    ("called cloud shadow", FLAG_SHADOW, "#1f4fd8"),
    ("called cloud, recovered as ice", FLAG_RECOVERED, "#11c5bf"),
)
# Band combinations by preference.
_COLOURS: Final = (("red", "green", "blue"), ("swir16", "nir", "red"))


def plot_companions(cube: xr.Dataset, *, pairs: int = 3, title: str = "") -> Figure:
    """What every date shows: the optical image with what is masked, and its Sentinel-1 companion with its age.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.cube.compose` on observations, with ``red``, ``optical_flags``, ``vv_db`` and
        ``sentinel1_age``.
    pairs : int
        Dates beside each other.
    title : str
        Title.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    CubeError
        If the cube lacks one of them.
    """
    missing = [name for name in ("red", "optical_flags", "vv_db", "sentinel1_age") if name not in cube]
    if missing:
        raise CubeError(f"the cube has no {', '.join(missing)}", "compose Sentinel-2 and Sentinel-1 on observations")
    dates = cube.sizes["time"]
    high, wide = -(-dates // pairs), min(pairs, dates)
    tall = cube.sizes["y"] / cube.sizes["x"]
    figure = empty_figure((2 * 2.3 * wide + 0.9, (2.3 * tall + 0.35) * high + 0.9))
    # A third, narrow column parts the pairs.
    axes = figure.subplots(high, 3 * wide, squeeze=False, width_ratios=[1, 1, 0.06] * wide)
    for spare in axes[:, 2::3].flat:
        spare.set_axis_off()
    bands = next((bands for bands in _COLOURS if all(band in cube for band in bands)), ("red",) * 3)
    top = _top(cube[list(dict.fromkeys(bands))])
    for index in range(high * wide):
        left, right = axes[index // wide, 3 * (index % wide) : 3 * (index % wide) + 2]
        if index >= dates:
            left.set_axis_off()
            right.set_axis_off()
            continue
        here = cube.isel(time=index)
        _masked_image(left, here, bands, top)
        shown = _companion(right, here)
    figure.colorbar(shown, ax=axes, shrink=0.5, aspect=35, pad=0.01, label="VV (dB)")
    _legend(figure, bands)
    figure.suptitle(title)
    return figure


def _top(image: xr.Dataset) -> float:
    """Reflectance that is shown as white, the same on every date: clouds do not darken the rest."""
    dark = [float(np.nanpercentile(image[name].isel(time=i), 50)) for name in image for i in range(image.sizes["time"])]
    return float(np.clip(3 * np.nanpercentile(dark, 25), 0.25, 1.0)) if np.isfinite(dark).any() else 1.0


def _masked_image(axes: Axes, here: xr.Dataset, bands: tuple[str, ...], top: float) -> None:
    stack = np.stack([here[band].to_numpy() for band in bands], axis=-1)
    shown = np.clip(stack / top, 0, 1) ** 0.7
    extent = extent_of(here)
    axes.imshow(np.where(np.isfinite(shown), shown, 0.73), extent=extent, interpolation="nearest")
    flags = here["optical_flags"].to_numpy()
    for _, bit, colour in _MASKS:
        mask = (flags & bit) > 0
        if mask.any():
            _outline_mask(axes, mask, extent, colour)
    seen = max(int((flags & FLAG_OBSERVED).sum()), 1)
    masked = int(((flags & (FLAG_CLOUD | FLAG_SHADOW)) > 0).sum()) / seen
    axes.set_title(f"{str(here['time'].to_numpy())[:10]}   {masked:.0%} masked", fontsize=8)
    without_ticks(axes)


def _outline_mask(
    axes: Axes, mask: npt.NDArray[np.bool_], extent: tuple[float, float, float, float], colour: str
) -> None:
    """A line around a mask, the frame included, and strokes within, through which the image is still seen."""
    dx, dy = (extent[1] - extent[0]) / mask.shape[1], (extent[3] - extent[2]) / mask.shape[0]
    framed = np.pad(mask.astype(float), 1)
    x = extent[0] + dx * (np.arange(framed.shape[1]) - 0.5)
    y = extent[3] - dy * (np.arange(framed.shape[0]) - 0.5)
    strokes = axes.contourf(x, y, framed, levels=[0.5, 2], colors="none", hatches=["//"])
    strokes.set(edgecolor=colour, linewidth=0)
    axes.contour(x, y, framed, levels=[0.5], colors=colour, linewidths=0.8)


def _companion(axes: Axes, here: xr.Dataset) -> Any:
    shown = axes.imshow(here["vv_db"], cmap="gray", vmin=-22, vmax=2, extent=extent_of(here), interpolation="nearest")
    axes.set_facecolor("#bbbbbb")
    age = float(here["sentinel1_age"])
    orbit = str(here["sentinel1_orbit_state"].to_numpy()) if "sentinel1_orbit_state" in here.coords else ""
    said = _said_age(pd.Timestamp(str(here["time"].to_numpy())), age)
    axes.set_title(f"{said}  {orbit}".strip(), fontsize=8)
    without_ticks(axes)
    return shown


def _said_age(time: pd.Timestamp, age: float) -> str:
    if np.isnan(age):
        return "no companion"
    companion = time + pd.Timedelta(days=age)
    day = f"{companion:%m-%d}"
    if companion.date() == time.date():
        return f"{day}, same day"
    days = "day" if round(abs(age), 1) == 1 else "days"
    return f"{day}, {round(abs(age), 1):g} {days} {'later' if age > 0 else 'earlier'}"


def _legend(figure: Figure, bands: tuple[str, ...]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor="none", edgecolor=colour, hatch="//", label=name) for name, _, colour in _MASKS]
    colours = "true colour" if bands == _COLOURS[0] else " / ".join(dict.fromkeys(bands))
    title = f"left: {colours}; right: Sentinel-1 companion and its age"
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False, title=title)
