"""Figures with matplotlib; each returns a Figure and leaves saving to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from glaciercube.view.canvas import empty_figure, extent_of, without_ticks

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_area", "plot_change", "plot_inputs"]

_ICE, _TRUTH, _LINE = "#08519c", "#d7301f", "#ffcc00"


def plot_area(
    series: pd.DataFrame, *, truth: pd.DataFrame | None = None, title: str = "", axes: Axes | None = None
) -> Figure:
    """Area through time with its interval.

    Parameters
    ----------
    series : DataFrame
        From `glaciercube.change.area_series` (one line per outline) or `regional_area`.
    truth : DataFrame or None
        Columns ``time`` and ``area_km2``, where the truth is known.
    title : str
        Title.
    axes : matplotlib Axes or None
        Where to draw; a new figure when None.

    Returns
    -------
    matplotlib Figure
    """
    if axes is None:
        axes = empty_figure((7, 4)).subplots()
    groups = series.groupby("outline") if "outline" in series else [("ice area", series)]
    several = "outline" in series and series["outline"].nunique() > 1
    for name, part in groups:
        line = axes.plot(part["time"], part["area_km2"], "o-", label=str(name), color=None if several else _ICE, ms=4)[
            0
        ]
        if part["lower_km2"].notna().any():
            axes.fill_between(
                part["time"], part["lower_km2"], part["upper_km2"], color=line.get_color(), alpha=0.18, lw=0
            )
    if truth is not None:
        axes.plot(truth["time"], truth["area_km2"], "s--", color=_TRUTH, ms=4, label="truth")
    axes.set_ylabel("ice area (km²)")
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if not several or series["outline"].nunique() <= 12:
        axes.legend(frameon=False, fontsize=8)
    return axes.figure  # type: ignore[return-value]


def plot_inputs(
    cube: xr.Dataset, prediction: xr.Dataset, *, outlines: gpd.GeoDataFrame | None = None, title: str = ""
) -> Figure:
    """Reflectance, backscatter, terrain and probability side by side, a row per date.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.cube.compose`; what it lacks is left out.
    prediction : Dataset
        With ``glacier_probability`` of the same dates and grid.
    outlines : GeoDataFrame or None
        Drawn over every panel.
    title : str
        Title.

    Returns
    -------
    matplotlib Figure
    """
    panels = [name for name, needs in (("optical", "red"), ("radar", "vv_db"), ("terrain", "slope")) if needs in cube]
    panels.append("probability")
    times = cube["time"].to_numpy()
    figure = empty_figure((3.4 * len(panels) + 0.6, 3.0 * len(times) + 0.5))
    axes = figure.subplots(len(times), len(panels), squeeze=False)
    for row, time in enumerate(times):
        here, found = cube.isel(time=row), prediction["glacier_probability"].isel(time=row)
        for column, panel in enumerate(panels):
            _panel(axes[row, column], panel, here, found)
            if column == 0:
                axes[row, column].set_title(f"{str(time)[:10]}  {axes[row, column].get_title()}", fontsize=9)
            _outlines(axes[row, column], outlines, cube)
    figure.suptitle(title)
    return figure


def plot_change(
    images: list[tuple[str, xr.Dataset]],
    probabilities: list[tuple[str, xr.DataArray]],
    series: pd.DataFrame,
    *,
    truth: pd.DataFrame | None = None,
    outlines: gpd.GeoDataFrame | None = None,
    title: str = "",
) -> Figure:
    """What changed: first and last image, first and last probability, and the area between.

    Parameters
    ----------
    images : list of (title, Dataset)
        Each with ``red``, ``green``, ``blue`` or ``swir16``, ``nir``, ``red`` (y, x).
    probabilities : list of (title, DataArray)
        (y, x), 0 to 1.
    series : DataFrame
        From `glaciercube.change.regional_area`.
    truth : DataFrame or None
        Columns ``time`` and ``area_km2``.
    outlines : GeoDataFrame or None
        Drawn over the maps.
    title : str
        Title.

    Returns
    -------
    matplotlib Figure
    """
    count = len(images) + len(probabilities)
    figure = empty_figure((4.1 * count, 7.6))
    layout = figure.add_gridspec(2, count, height_ratios=[1.35, 1])
    for column, (name, image) in enumerate(images):
        axes = figure.add_subplot(layout[0, column])
        _show_rgb(axes, image)
        _outlines(axes, outlines, image)
        axes.set_title(name, fontsize=10)
    for column, (name, probability) in enumerate(probabilities, start=len(images)):
        axes = figure.add_subplot(layout[0, column])
        shown = axes.imshow(
            probability, cmap="Blues", vmin=0, vmax=1, extent=extent_of(probability), interpolation="nearest"
        )
        axes.set_facecolor("#bbbbbb")
        _outlines(axes, outlines, probability)
        axes.set_title(name, fontsize=10)
        without_ticks(axes)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="glacier probability")
    plot_area(series, truth=truth, axes=figure.add_subplot(layout[1, :]))
    figure.suptitle(title)
    return figure


def _panel(axes: Axes, panel: str, here: xr.Dataset, found: xr.DataArray) -> None:
    if panel == "optical":
        _show_rgb(axes, here)
        axes.set_title("SWIR / NIR / red", fontsize=9)
    elif panel == "radar":
        shown = axes.imshow(here["vv_db"], cmap="gray", vmin=-22, vmax=2, extent=extent_of(here))
        axes.figure.colorbar(shown, ax=axes, shrink=0.7)
        axes.set_title("VV gamma nought (dB)", fontsize=9)
    elif panel == "terrain":
        shown = axes.imshow(here["slope"], cmap="magma", vmin=0, vmax=70, extent=extent_of(here))
        axes.figure.colorbar(shown, ax=axes, shrink=0.7)
        axes.set_title("slope (°)", fontsize=9)
    else:
        shown = axes.imshow(found, cmap="Blues", vmin=0, vmax=1, extent=extent_of(here), interpolation="nearest")
        axes.set_facecolor("#bbbbbb")
        axes.figure.colorbar(shown, ax=axes, shrink=0.7)
        axes.set_title("glacier probability", fontsize=9)
    without_ticks(axes)


def _show_rgb(axes: Axes, image: xr.Dataset) -> None:
    bands = ("swir16", "nir", "red") if "swir16" in image else ("red", "green", "blue")
    stack = np.stack([image[band].to_numpy() for band in bands], axis=-1)
    finite = stack[np.isfinite(stack).all(axis=-1)]
    top = max(float(np.percentile(finite, 98)), 0.2) if finite.size else 1.0
    shown = np.clip(stack / top, 0, 1) ** 0.6
    axes.imshow(np.where(np.isfinite(shown), shown, 0.73), extent=extent_of(image), interpolation="nearest")
    without_ticks(axes)


def _outlines(axes: Axes, outlines: gpd.GeoDataFrame | None, layer: xr.Dataset | xr.DataArray) -> None:
    if outlines is None or outlines.empty:
        return
    limits = extent_of(layer)
    outlines.boundary.plot(ax=axes, color=_LINE, linewidth=0.7)
    axes.set(xlim=limits[:2], ylim=limits[2:], xlabel="", ylabel="")
