"""An optional cloud model over blocks of reflectance."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.errors import CubeError, ModelError

__all__ = ["MODEL_BANDS", "model_probability"]

# s2cloudless: B01 B02 B04 B05 B08 B8A B09 B10 B11 B12.
MODEL_BANDS: Final = (
    "coastal",
    "blue",
    "red",
    "rededge1",
    "nir",
    "nir08",
    "nir09",
    "cirrus",
    "swir16",
    "swir22",
)


def model_probability(optical: xr.Dataset, model: str) -> xr.DataArray:
    """Cloud probability by an optional model, lazily, block by block.

    ``s2cloudless`` is a pixel-wise classifier trained on top-of-atmosphere reflectance of ten bands, cirrus among
    them, which surface products do not have; its code and weights are CC BY-SA 4.0 and come with its own package.

    Parameters
    ----------
    optical : Dataset (time, y, x)
        Top-of-atmosphere reflectance with `MODEL_BANDS`.
    model : str
        ``"s2cloudless"``.

    Returns
    -------
    DataArray (time, y, x)
        float32, 0 to 1, NaN where a band is missing.

    Raises
    ------
    ModelError
        If the model is unknown or not installed, or the reflectance is not top-of-atmosphere.
    CubeError
        If a band is missing.
    """
    if model != "s2cloudless":
        raise ModelError(f"unknown cloud model {model!r}", "choose s2cloudless, or leave it out")
    level = optical.attrs.get("reflectance", "")
    if level != "toa":
        raise ModelError(
            f"s2cloudless knows top-of-atmosphere reflectance and the cube holds {level or 'a reflectance unnamed'}",
            "read Sentinel-2 L1C (collection sentinel-2-l1c), or leave the cloud model out and mask by scl",
        )
    missing = [name for name in MODEL_BANDS if name not in optical]
    if missing:
        raise CubeError(
            f"s2cloudless needs the bands {', '.join(missing)} too",
            f"read them with sensors: {{sentinel-2: {{bands: [{', '.join(missing)}]}}}}",
        )
    if importlib.util.find_spec("s2cloudless") is None:
        raise ModelError("the cloud model s2cloudless is not installed", "pip install 'glaciercube[clouds]'")
    probability: xr.DataArray = xr.apply_ufunc(
        _probability, *(optical[name] for name in MODEL_BANDS), dask="parallelized", output_dtypes=[np.float32]
    )
    return probability.assign_attrs(long_name="cloud probability by s2cloudless", units="1")


def _probability(*bands: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    stack = np.stack(bands, axis=-1)
    known = np.isfinite(stack).all(axis=-1)
    out = np.full(known.shape, np.nan, np.float32)
    if known.any():
        # One thread: blocks are computed side by side.
        found = _detector().get_cloud_probability_maps(stack[known][None, None], num_threads=1)
        out[known] = found[0, 0]
    return out


@cache
def _detector() -> Any:
    # Its own average and dilation stop at a block's edge; `MaskOptions.dilate` does not.
    return importlib.import_module("s2cloudless").S2PixelCloudDetector(average_over=None, dilation_size=None)
