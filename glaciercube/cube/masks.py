"""What hides the ground in an optical observation: clouds and their shadows, and bright ice that is neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from glaciercube.cube.cloud_model import model_probability
from glaciercube.errors import CubeError, require
from glaciercube.sensors import SCL_CLOUD, SCL_SHADOW
from glaciercube.sensors.sentinel2 import SCL_SNOW

__all__ = [
    "CLEAR_FLAGS",
    "FLAG_CLOUD",
    "FLAG_OBSERVED",
    "FLAG_RECOVERED",
    "FLAG_SHADOW",
    "FLAG_SNOW",
    "MaskOptions",
    "looks_like_ice",
    "optical_flags",
]

Bits = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# Bits of the cube variable `optical_flags`; the kernel of inference shifts them by one into `quality`, where 32 and 64
# are taken: hence the gap.
FLAG_OBSERVED, FLAG_CLOUD, FLAG_SHADOW, FLAG_SNOW, FLAG_RECOVERED = 1, 2, 4, 8, 64
CLEAR_FLAGS: Final = FLAG_CLOUD | FLAG_SHADOW

# Snow and ice: NIR of at least 0.11 keeps water out (Hall et al. 1995, doi:10.1016/0034-4257(95)00137-P). Their NDSI of
# 0.4 finds snow among rock; here it has to be told from cloud of ice crystals, which has 0.2 and more in SWIR at 1.6 um
# (King et al. 2013, doi:10.1109/TGRS.2012.2227333). Labelled pixels (`simulate/spectra.json`) have a median of 0.026
# for snow and 0.014 for ice there, and less than 0.10 in 95 % and in more than 99 %. On 300 simulated scenes these keep
# 88 % of the ice and snow that is called cloud, and 0.3 % of true cloud; an NDSI of 0.6 keeps 92 % and 0.8 %.
ICE_NDSI, ICE_SWIR, ICE_NIR = 0.7, 0.10, 0.11
# Dates below which nothing is called persistent.
_LEAST_DATES = 3


@dataclass(frozen=True)
class MaskOptions:
    """What counts as hidden by cloud or cloud shadow.

    Attributes
    ----------
    cloud_classes : tuple of int
        Classes of `scl` that are cloud: 8 medium and 9 high probability, 10 thin cirrus. Snow (11) never is, and
        saturated pixels (1) are not, since bright snow saturates.
    dilate : float
        Metres by which clouds and their shadows are grown, from pixel centre to pixel centre, within the region.
    cloud_probability : float or None
        Percent; from there on a pixel is cloud too. Needs the band ``cloud_probability``.
    snow_probability : float or None
        Percent; from there on a pixel is never cloud. Needs the band ``snow_probability``.
    recover_ice : str
        ``"spectrum"``: what is called cloud and has the spectrum of snow or ice (`looks_like_ice`) is not cloud; each
        date for itself. ``"persistent"``: only where it is called cloud in `persistent_share` of the dates that show
        it (of three at least); rows then depend on all dates. ``"never"``.
    recover_classes : tuple of int
        Classes of `scl` that may be overruled. Thin cirrus (10) is not: ice seen through it has the spectrum of ice.
    persistent_share : float
        0 to 1.
    model : str or None
        ``"s2cloudless"``: an optional cloud model for top-of-atmosphere reflectance; see `model_probability`.
    model_threshold : float
        Its probability, 0 to 1, from which on a pixel is cloud too.
    """

    cloud_classes: tuple[int, ...] = SCL_CLOUD
    dilate: float = 0.0
    cloud_probability: float | None = None
    snow_probability: float | None = None
    recover_ice: Literal["spectrum", "persistent", "never"] = "spectrum"
    recover_classes: tuple[int, ...] = (8, 9)
    persistent_share: float = 0.8
    model: Literal["s2cloudless"] | None = None
    model_threshold: float = 0.4

    def __post_init__(self) -> None:
        require(0 <= self.dilate <= 5000, f"dilate {self.dilate} is not a distance in metres", "give 0 to 5000")
        for name in ("cloud_probability", "snow_probability"):
            value = getattr(self, name)
            fine = value is None or 0 < value <= 100
            require(fine, f"{name} {value} is not a percentage", "give more than 0 and at most 100, or leave it out")
        for name in ("persistent_share", "model_threshold"):
            value = getattr(self, name)
            require(0 < value <= 1, f"{name} {value} is not a share", "give more than 0 and at most 1")
        for name in ("cloud_classes", "recover_classes"):
            classes = getattr(self, name)
            object.__setattr__(self, name, tuple(classes))
            fine = all(0 < kind < 11 for kind in classes)
            require(fine, f"{name} {list(classes)} holds no class of cloud", "give classes from 1 to 10; 11 is snow")


def optical_flags(optical: xr.Dataset, options: MaskOptions) -> xr.DataArray:
    """State of every optical observation, lazily.

    Parameters
    ----------
    optical : Dataset (time, y, x)
        Reflectance, with ``red``; ``scl``, ``cloud_probability``, ``snow_probability`` where known.
    options : MaskOptions
        What counts as hidden.

    Returns
    -------
    DataArray (time, y, x)
        uint8 bits: 1 observed, 2 cloud, 4 cloud shadow, 8 snow (or ice), 64 called cloud and recovered as ice.

    Raises
    ------
    CubeError
        If a layer is missing that the options ask for.
    ModelError
        If the cloud model is not installed, or is asked about surface reflectance.
    """
    layers = {str(name): optical[name] for name in _needed(optical, options)}
    if options.model is not None:
        layers["model"] = model_probability(optical, options.model)
    if options.recover_ice == "persistent" and "scl" in layers:
        layers["persistent"] = _persistent(layers["scl"], options)
    flags: xr.DataArray = xr.apply_ufunc(
        _flags,
        *layers.values(),
        kwargs={"names": tuple(layers), "options": options},
        dask="parallelized",
        output_dtypes=[np.uint8],
    )
    flags = flags.transpose(*optical["red"].dims)
    if options.dilate > 0:
        flags = _dilated(flags, options.dilate)
    return flags.assign_attrs(
        long_name="state of the optical observation",
        flag_masks=np.array([FLAG_OBSERVED, FLAG_CLOUD, FLAG_SHADOW, FLAG_SNOW, FLAG_RECOVERED], "uint8"),
        flag_meanings="observed cloud cloud_shadow snow recovered",
    )


def looks_like_ice(green: npt.ArrayLike, nir: npt.ArrayLike, swir16: npt.ArrayLike) -> Mask:
    """Whether a spectrum is that of sunlit snow or ice, and not of cloud.

    Parameters
    ----------
    green, nir, swir16 : array
        Reflectance (1); red may stand in for green.

    Returns
    -------
    bool array
        NDSI of 0.7 or more, SWIR of 0.10 or less, NIR of 0.11 or more; False where anything is NaN.
    """
    green, nir, swir16 = (np.asarray(band, np.float32) for band in (green, nir, swir16))
    # Multiplied out, so that nothing is divided by zero.
    snowy = green - swir16 >= np.float32(ICE_NDSI) * (green + swir16)
    found: Mask = snowy & (swir16 <= np.float32(ICE_SWIR)) & (nir >= np.float32(ICE_NIR))
    return found


def _needed(optical: xr.Dataset, options: MaskOptions) -> list[str]:
    """Variables that the flags are made from."""
    needed = ["red", *(["scl"] if "scl" in optical else [])]
    for name in ("cloud_probability", "snow_probability"):
        if getattr(options, name) is None:
            continue
        if name not in optical:
            raise CubeError(
                f"there is no {name} to mask by",
                f"read it with sensors: {{sentinel-2: {{bands: [{name}]}}}}, from a collection that publishes it",
            )
        needed.append(name)
    spectrum = [("green" if "green" in optical else "red"), "nir", "swir16"]
    if options.recover_ice != "never" and all(name in optical for name in spectrum):
        needed += [name for name in spectrum if name not in needed]
    return needed


def _flags(*arrays: npt.NDArray[Any], names: tuple[str, ...], options: MaskOptions) -> Bits:
    """Bits of one block."""
    layers = dict(zip(names, np.broadcast_arrays(*arrays), strict=True))
    observed: Mask = np.isfinite(layers["red"])
    scl = layers.get("scl", np.uint8(0))
    snow: Mask = observed & (scl == SCL_SNOW)
    cloud = observed & _called_cloud(layers, options)
    recovered = cloud & _recoverable(layers, options)
    shadow: Mask = observed & np.isin(scl, SCL_SHADOW)
    bits = observed.astype(np.uint8)
    for mask, bit in (
        (cloud & ~recovered, FLAG_CLOUD),
        (shadow, FLAG_SHADOW),
        (snow | recovered, FLAG_SNOW),
        (recovered, FLAG_RECOVERED),
    ):
        bits |= mask.astype(np.uint8) * np.uint8(bit)
    return bits


def _called_cloud(layers: Mapping[str, npt.NDArray[Any]], options: MaskOptions) -> Mask:
    scl = layers.get("scl", np.zeros(layers["red"].shape, np.uint8))
    cloud: Mask = np.isin(scl, options.cloud_classes)
    for name, limit in (("cloud_probability", options.cloud_probability), ("model", options.model_threshold)):
        if name in layers and limit is not None:
            cloud = cloud | ((layers[name] >= limit) & (scl != SCL_SNOW))
    if options.snow_probability is not None:
        cloud = cloud & (layers["snow_probability"] < options.snow_probability)
    return cloud


def _recoverable(layers: Mapping[str, npt.NDArray[Any]], options: MaskOptions) -> Mask:
    """Pixels whose spectrum may overrule what calls them cloud."""
    if options.recover_ice == "never" or not {"nir", "swir16"} <= set(layers):
        return np.zeros(layers["red"].shape, np.bool_)
    ice = looks_like_ice(layers.get("green", layers["red"]), layers["nir"], layers["swir16"])
    if "scl" in layers:
        # Cloud by a probability or a model alone has a class that is not cloud, and may be overruled.
        final = [kind for kind in options.cloud_classes if kind not in options.recover_classes]
        ice &= ~np.isin(layers["scl"], final)
    return ice & layers["persistent"] if "persistent" in layers else ice


def _persistent(scl: xr.DataArray, options: MaskOptions) -> xr.DataArray:
    """Where the classification calls cloud in most of the dates that show the ground: (y, x) bool."""
    single = scl.chunk(time=-1) if scl.chunks is not None else scl
    found: xr.DataArray = xr.apply_ufunc(
        _mostly_cloud,
        single,
        input_core_dims=[["time"]],
        kwargs={"options": options},
        dask="parallelized",
        output_dtypes=[np.bool_],
    )
    return found


def _mostly_cloud(scl: npt.NDArray[Any], options: MaskOptions) -> Mask:
    seen = (scl != 0).sum(axis=-1)
    called = np.isin(scl, options.cloud_classes).sum(axis=-1)
    mostly: Mask = (seen >= _LEAST_DATES) & (called >= options.persistent_share * seen)
    return mostly


def _dilated(flags: xr.DataArray, metres: float) -> xr.DataArray:
    steps = [abs(float(flags[name][1] - flags[name][0])) for name in ("y", "x") if flags.sizes[name] > 1]
    if not steps or metres / min(steps) < 1 - 1e-6:
        # Nothing is near enough to grow into.
        return flags
    pixels = metres / min(steps)
    values = flags.data
    if flags.chunks is None:
        return flags.copy(data=_grow(values, reach=pixels))
    import dask.array as da

    # Every block sees the pixels that may reach into it: there are no seams. An axis that is reached across is one
    # block, with nothing beyond it.
    reach = int(pixels + 1e-6)
    across = {axis for axis in (1, 2) if reach >= values.shape[axis]}
    grown = da.map_overlap(
        _grow,
        values.rechunk(dict.fromkeys(across, -1)),
        reach=pixels,
        depth={0: 0, **{axis: 0 if axis in across else reach for axis in (1, 2)}},
        boundary="none",
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )
    return flags.copy(data=grown.rechunk(values.chunks))


def _grow(bits: Bits, *, reach: float) -> Bits:
    """Grow cloud and shadow by `reach` pixels: (time, y, x) bits."""
    out = bits.copy()
    for index, layer in enumerate(bits):
        observed = (layer & FLAG_OBSERVED) > 0
        for bit in (FLAG_CLOUD, FLAG_SHADOW):
            mask = (layer & bit) > 0
            if mask.any():
                near = (ndimage.distance_transform_edt(~mask) <= reach + 1e-6) & observed
                out[index][near] |= np.uint8(bit)
        hidden = (out[index] & FLAG_CLOUD) > 0
        out[index][hidden] &= np.uint8(0xFF ^ FLAG_RECOVERED)
    return out
