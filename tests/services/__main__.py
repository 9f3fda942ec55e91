"""Start every server over a simulated world, say where they are, and wait for Ctrl-C."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import WorldOptions, simulate_world
from services import Missing, nginx, postgres, published, seaweedfs, stac_api

SHOWN = """
STAC API, assets by HTTP   {api}
STAC API, assets in S3     {s3_api}
static catalogue           {web}/catalog.json
the same on disk           {disk}
S3                         {endpoint}, bucket {bucket}

Reading from S3 needs, in the environment:
{environ}

A configuration of that world:
region: {{name: simulated, bbox: [{bbox}], resolution: 20}}
catalog: {api}
time: {time}
sensors: [sentinel-2, sentinel-1, dem]
model: {{name: band-ratio}}
store: out/services.zarr

Ctrl-C stops them.
"""


def main() -> int:
    """Serve until told to stop."""
    # To be ended is to be interrupted: the servers must not outlive us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            sys.stdout.write(_started(stack))
            sys.stdout.flush()
            threading.Event().wait()
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    except KeyboardInterrupt:
        sys.stdout.write("\nstopped\n")
    return 0


def _started(stack: ExitStack) -> str:
    """Start all servers, to be stopped with the stack; what to tell about them."""
    options = WorldOptions(seed=30, size=160, years=(2021, 2022), dates_per_year=3)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glaciercube-world-")))
    world = simulate_world(options)
    catalog = write_catalog(world, folder)
    web = stack.enter_context(nginx(folder))
    s3 = stack.enter_context(seaweedfs())
    s3.upload(folder)
    database = stack.enter_context(postgres())
    api = stack.enter_context(stac_api(database, "web", published(folder, web.url)))
    s3_api = stack.enter_context(stac_api(database, "s3", published(folder, s3.url)))
    return SHOWN.format(
        api=api.url,
        s3_api=s3_api.url,
        web=web.url,
        disk=catalog,
        endpoint=s3.endpoint,
        bucket=s3.bucket,
        environ="\n".join(f"export {name}={value}" for name, value in s3.environ.items()),
        bbox=", ".join(f"{degrees:.4f}" for degrees in world.region.bbox),
        time=f"{options.years[0]}/{options.years[-1]}",
    )


if __name__ == "__main__":
    sys.exit(main())
