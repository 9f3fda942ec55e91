"""predict(): a model over a whole cube, lazily, block by block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from glaciercube.errors import CubeError
from glaciercube.inference.block import NOT_CANDIDATE, QUALITY_BITS, BlockOptions, encode_block, predict_block
from glaciercube.inference.window import Window, block_window
from glaciercube.models.contract import VARIABLES, Contract

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["PREDICTION_ATTRS", "block_variables", "check_cube", "predict"]

_OWN_BITS = [bit for bit in QUALITY_BITS.values() if bit != NOT_CANDIDATE]

PREDICTION_ATTRS: dict[str, dict[str, Any]] = {
    "glacier_probability": {
        "long_name": "probability that the pixel is glacier ice, clean or under debris",
        "units": "1",
        "ancillary_variables": "quality",
    },
    "quality": {
        "long_name": "what the probability rests on; 0 was never processed",
        "units": "1",
        # CF: a flag is set where the masked value is the flag's; one that is no bit of its own looks at two.
        "flag_masks": [*_OWN_BITS, 129, 129],
        "flag_values": [*_OWN_BITS, 129, NOT_CANDIDATE],
        "flag_meanings": " ".join([*QUALITY_BITS, "not_candidate"]),
    },
}

# What the kernel reads beside the model's inputs, to fill `quality`.
_STATE = ("optical_flags", "red", "vv_db", "slope")


def predict(
    cube: xr.Dataset, model: Model, *, block: int = 512, dates: int = 8, options: BlockOptions | None = None
) -> xr.Dataset:
    """Map a model over a cube; nothing is computed until asked.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.cube.compose`, or any dataset on a metric grid that has the model's variables under the names
        and in the units of `glaciercube.models.VARIABLES` (NaN where missing): dynamic ones (time, y, x), terrain
        (y, x). NumPy or dask, any chunks.
    model : Model
        From `glaciercube.models.load_model`.
    block : int
        Side of a block in pixels; the result does not depend on it.
    dates : int
        Dates per task; the result does not depend on it.
    options : BlockOptions or None
        Batch and device.

    Returns
    -------
    Dataset
        ``glacier_probability`` (time, y, x) float32 in 0 to 1, NaN where the model has no evidence, and ``quality``
        (time, y, x) uint8 flags, both dask-backed.

    Raises
    ------
    CubeError
        If dimensions or units are not those documented.
    ModelError
        If a variable that the model requires is missing.

    Warns
    -----
    UserWarning
        If the cube holds another reflectance (surface, top of atmosphere) or pixel size than the model is meant for.
    """
    cube = check_cube(cube, model.contract)
    shape = (cube.sizes["y"], cube.sizes["x"])
    # Terrain alone has no time of its own: the coordinate keeps the axis.
    lazy = cube[block_variables(cube, model.contract)].assign_coords(time=cube["time"])
    halo, stride = model.contract.halo, model.contract.lattice
    cells = [
        [
            _cell(lazy, model, block_window(y, x, shape, halo=halo, stride=stride), dates, options or BlockOptions())
            for x in _cuts(shape[1], block)
        ]
        for y in _cuts(shape[0], block)
    ]
    probability, quality = (_assemble([[cell[index] for cell in row] for row in cells]) for index in (0, 1))
    return _dataset(cube, probability, quality, model)


def check_cube(cube: xr.Dataset, contract: Contract) -> xr.Dataset:
    """Hold a cube against a contract.

    Returns
    -------
    Dataset
        The same, with dimensions in the order (time, y, x).

    Raises
    ------
    CubeError
        If dimensions or units are not those documented.
    ModelError
        If a variable that the model requires is missing.

    Warns
    -----
    UserWarning
        If the cube holds another reflectance or pixel size than the model is meant for.
    """
    missing = [dim for dim in ("time", "y", "x") if dim not in cube.dims]
    if missing:
        raise CubeError(
            f"the cube has no dimension {', '.join(missing)} (it has {', '.join(map(str, cube.dims)) or 'none'})",
            "rename its dimensions to time, y, x; a single date needs expand_dims('time')",
        )
    for modality in contract.select([str(name) for name in cube.data_vars]):
        wanted = {"y", "x"} if modality.static else {"time", "y", "x"}
        for name in modality.variables:
            _check_variable(cube[name], name, wanted)
    _warn_of_mismatch(cube, contract)
    return cube.transpose("time", "y", "x", ...)


def block_variables(cube: xr.Dataset, contract: Contract) -> list[str]:
    """The variables of a cube that a block of this model reads."""
    inputs = [name for m in contract.select([str(v) for v in cube.data_vars]) for name in m.variables]
    return list(dict.fromkeys([*inputs, *(name for name in _STATE if name in cube)]))


def _check_variable(variable: xr.DataArray, name: str, wanted: set[str]) -> None:
    if set(variable.dims) != wanted:
        raise CubeError(
            f"variable {name} has dimensions {tuple(map(str, variable.dims))}", f"give it ({', '.join(sorted(wanted))})"
        )
    units = str(variable.attrs.get("units", VARIABLES.get(name, "")))
    alike = {"m-1": "1/m", "degrees": "degree", "dimensionless": "1", "": "1"}
    alike |= dict.fromkeys(("m a-1", "m/a", "m yr-1", "m/yr", "m year-1"), "m/year")
    if name in VARIABLES and alike.get(units, units) != VARIABLES[name]:
        raise CubeError(
            f"variable {name} is in {units!r}", f"convert it to {VARIABLES[name]!r} and set its units attribute"
        )


def _warn_of_mismatch(cube: xr.Dataset, contract: Contract) -> None:
    has = cube.attrs.get("reflectance", "")
    if contract.reflectance in ("toa", "surface") and has and has != contract.reflectance:
        warnings.warn(
            f"model {contract.name} is meant for {contract.reflectance} reflectance and the cube holds {has}: "
            "choose the other Sentinel-2 level, or parameters made for this one",
            UserWarning,
            stacklevel=3,
        )
    if cube.sizes["x"] > 1:
        pixel = abs(float(cube["x"][1] - cube["x"][0]))
        low, high = contract.resolution
        if not low <= pixel <= high:
            warnings.warn(
                f"model {contract.name} is meant for pixels of {low:g} to {high:g} m and the cube has {pixel:g} m: "
                "choose another resolution",
                UserWarning,
                stacklevel=3,
            )


def _cell(
    lazy: xr.Dataset, model: Model, window: Window, dates: int, options: BlockOptions
) -> tuple[list[Any], list[Any]]:
    """Lazy probability and quality of one block: a task for its static branch, and one for every few dates."""
    import dask
    import dask.array as da

    encode, compute = dask.delayed(encode_block), dask.delayed(predict_block, nout=2)
    here = lazy.isel(y=window.y.read, x=window.x.read)
    static = encode(model, _arrays(here, static=True), window, options)
    probability, quality = [], []
    context, days = model.contract.time_context, _days(lazy, model.contract)
    for time in _cuts(lazy.sizes["time"], dates):
        size = (time.stop - time.start, window.y.size, window.x.size)
        more: dict[str, Any] = {}
        if context is None:
            arrays = _arrays(here.isel(time=time), static=False)
        else:
            targets = range(time.start, time.stop)
            rows = context.union(days, targets)
            arrays = _arrays(here.isel(time=rows), static=False)
            more = {"days": [days[row] for row in rows], "targets": [rows.index(row) for row in targets]}
        found, flags = compute(model, arrays, static, window, options, size[0], **more)
        probability.append(da.from_delayed(found, size, np.float32))
        quality.append(da.from_delayed(flags, size, np.uint8))
    return probability, quality


def _days(cube: xr.Dataset, contract: Contract) -> list[float]:
    """Times in days, for models that ask for them."""
    if contract.time_context is None:
        return []
    times = cube["time"].to_numpy()
    if not np.issubdtype(times.dtype, np.datetime64):
        raise CubeError(
            f"model {contract.name} looks at dates beside each date and the cube's times are {times.dtype}",
            "give datetime64 times",
        )
    days: list[float] = ((times - times[:1]) / np.timedelta64(1, "D")).tolist()
    return days


def _cuts(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _arrays(part: xr.Dataset, *, static: bool) -> dict[str, Any]:
    if static:
        return {str(name): variable.data for name, variable in part.data_vars.items() if "time" not in variable.dims}
    return {
        str(name): variable.data
        for name, variable in part.data_vars.items()
        if "time" in variable.dims or name in _STATE
    }


def _assemble(rows: list[list[list[Any]]]) -> Any:
    import dask.array as da

    # da.block nests from the outermost axis inwards: time, y, x; ours come as y, x, time.
    count = len(rows[0][0])
    return da.block([[[cell[t] for cell in row] for row in rows] for t in range(count)])


def _dataset(cube: xr.Dataset, probability: Any, quality: Any, model: Model) -> xr.Dataset:
    dims = ("time", "y", "x")
    data = {"glacier_probability": (dims, probability), "quality": (dims, quality)}
    keep = {name: coord for name, coord in cube.coords.items() if set(coord.dims) <= {*dims, "bnds"}}
    out = xr.Dataset(data, coords=keep)
    for name, attrs in PREDICTION_ATTRS.items():
        out[name].attrs.update(attrs)
        if "spatial_ref" in out.coords:
            out[name].attrs["grid_mapping"] = "spatial_ref"
    out = out.assign({age: cube[age] for age in cube.data_vars if str(age).endswith("_age")})
    modalities = model.contract.select([str(name) for name in cube.data_vars])
    made = {"model": model.contract.name, "model_hash": model.hash, "modalities": sorted(m.name for m in modalities)}
    made["variables"] = sorted({name for m in modalities for name in m.variables})
    return out.assign_attrs({**cube.attrs, **made})
