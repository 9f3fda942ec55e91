"""Importing glaciercube is cheap, and the rooms import one way."""

from __future__ import annotations

import subprocess
import sys


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import glaciercube; took = time.perf_counter() - start;"
        "heavy = [m for m in ('torch', 'distributed', 'dask.distributed', 'matplotlib') if m in sys.modules];"
        "sys.exit(f'heavy: {heavy}, {took:.2f} s' if heavy or took > 1 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_whole_chain_can_be_imported_without_torch() -> None:
    code = "import sys, glaciercube.cli, glaciercube.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_resolve() -> None:
    import glaciercube

    wanted = {"find", "load", "compose", "predict", "load_model", "open_store", "area_series"}
    options = {"RunOptions", "ClusterOptions", "Budget", "PlanOptions", "StoreOptions"}
    assert wanted | options <= set(glaciercube.__all__)
    for name in glaciercube.__all__:
        assert getattr(glaciercube, name) is not None
