"""Commands that make a store and say how it stands: run, update, explain, failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glaciercube.cli.base import CONFIG, ENDPOINT, QUIET, STORE, check_writable, main, store_of, talk, told
from glaciercube.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from glaciercube.campaign import Plan
    from glaciercube.cluster import ClusterOptions
    from glaciercube.config import Config

__all__ = ["explain", "failed", "run", "update"]

# Reasons that are told; the rest is counted.
_TOLD = 20
_CLUSTER = click.option(
    "--cluster",
    metavar="WHERE",
    help="Run there instead of where CONFIG says: threads, local, gateway, slurm, kubernetes or tcp://host:port.",
)
_RETRY = click.option(
    "--retry-missing", is_flag=True, help="Also do again what was made without scenes that could not be read."
)


@main.command()
@CONFIG
@click.option("--failed", "only_failed", is_flag=True, help="Do only what failed before; see `glaciercube failed`.")
@_RETRY
@_CLUSTER
@QUIET
@told
def run(config: Path, *, only_failed: bool, retry_missing: bool, cluster: str | None, quiet: bool) -> None:
    """Run the job of a CONFIG file, or finish it.

    Only what is missing or changed is computed, and it says why: dates that were never computed, other options or
    another model, objects that the store has lost. The catalogue is searched once, by the first run, and again when
    CONFIG asks for something else; `glaciercube update` looks for new scenes. Ctrl-C ends a run, and the next goes on
    where it ended.
    """
    from glaciercube.config import load_config

    talk(quiet=quiet)
    settings = load_config(config)
    options = replace(
        settings.run,
        progress=not quiet,
        only_failed=settings.run.only_failed or only_failed,
        retry_missing=settings.run.retry_missing or retry_missing,
    )
    settings = replace(settings, run=options, cluster=_cluster(settings, cluster))
    _go(settings, settings.plan(progress=not quiet))


@main.command()
@CONFIG
@click.option("--until", metavar="DATE", help="Search up to this date, from where the store's search began.")
@click.option("--time", metavar="INTERVAL", help="Search in this interval; what the store has beside it stays.")
@click.option("--renew-companions", is_flag=True, help="Let dates that are stored take nearer radar scenes, too.")
@_RETRY
@_CLUSTER
@QUIET
@told
def update(
    config: Path,
    *,
    until: str | None,
    time: str | None,
    renew_companions: bool,
    retry_missing: bool,
    cluster: str | None,
    quiet: bool,
) -> None:
    """Search again, and add what is new to the store of a CONFIG file.

    New dates are added wherever they fall. A date whose scenes were processed again or completed is computed anew;
    all others stay as they are, also if their scenes are gone from the catalogue, or a radar scene that came late is
    nearer to them (unless --renew-companions). With `compose: month` and the like a new date changes the window that it
    falls into. What was searched before and an interval given here are searched together by later updates of the same
    CONFIG.
    """
    from glaciercube.config import load_config

    if until and time:
        raise ConfigError("--until and --time both say when", "give one of them")
    talk(quiet=quiet)
    settings = load_config(config)
    options = replace(settings.run, progress=not quiet, retry_missing=settings.run.retry_missing or retry_missing)
    settings = replace(settings, run=options, cluster=_cluster(settings, cluster))
    companions: Any = "renew" if renew_companions else "keep"
    _go(settings, settings.plan(progress=not quiet, again=True, time=time, until=until, companions=companions))


@main.command()
@CONFIG
@click.option("--update", "again", is_flag=True, help="Of `glaciercube update`: search again. Nothing is written.")
@_CLUSTER
@QUIET
@told
def explain(config: Path, *, again: bool, cluster: str | None, quiet: bool) -> None:
    """Say what a run of CONFIG would read, compute and write, and why."""
    from glaciercube.campaign import Budget, check_budget, what_is_left
    from glaciercube.campaign import explain as explain_plan
    from glaciercube.config import load_config

    settings = load_config(config)
    settings = replace(settings, cluster=_cluster(settings, cluster))
    plan = settings.plan(check=False, progress=not quiet, again=again)
    left = what_is_left(plan, settings.run)
    prices = Budget(prices=settings.budget.prices)
    found = explain_plan(plan, settings.run, prices, cluster=settings.cluster, left=left)
    click.echo(str(found))
    for line in left.lines():
        click.echo(line)
    check_budget(found, settings.budget)


@main.command()
@STORE
@ENDPOINT
@click.option("--csv", type=click.Path(path_type=Path), help="Write both lists, shard by shard, to this file.")
@told
def failed(store: str, endpoint: str, csv: Path | None) -> None:
    """List what could not be made in a STORE (or that of a CONFIG file), and what was made without some scenes.

    `glaciercube run CONFIG --failed` tries the first alone, `--retry-missing` the second.
    """
    from glaciercube.campaign import failed_shards
    from glaciercube.store import missing_scenes

    if csv is not None:
        check_writable(csv)
    options = store_of(store, endpoint)
    missing = missing_scenes(options.path, endpoint=options.endpoint)
    lost = failed_shards(options)
    click.echo(f"{_shards(len(lost))} could not be made")
    for reason, some in _groups(lost, "reason"):
        click.echo(f"  {len(some)} of {_dates(some)}: {reason}")
    shards = len(missing.drop_duplicates(["time", "block_y", "block_x"]))
    click.echo(f"{_shards(shards)} made without scenes that could not be read")
    for scene, some in _groups(missing, "scene"):
        click.echo(f"  {len(some)} of {_dates(some)}: {scene}: {some['reason'].iloc[0]}")
    if csv is not None:
        import pandas as pd

        whole = pd.concat([lost.assign(state="failed"), missing.assign(state="made without")])
        whole.to_csv(csv, index=False)
        click.echo(f"list: {csv}")


def _go(settings: Config, plan: Plan) -> None:
    from glaciercube.campaign import run as run_plan

    outcome = run_plan(plan, settings.run, settings.as_dict(), cluster=settings.cluster)
    why = "; ".join(f"{count} {reason}" for reason, count in outcome.reasons.items())
    lacking = f" ({outcome.lacking} of them without scenes that could not be read)" if outcome.lacking else ""
    told = f" (why: {why})" if set(outcome.reasons) - {"never computed"} else ""
    click.echo(f"{_shards(outcome.computed)} computed{lacking}{told}, {outcome.skipped} were done: {outcome.path}")


def _cluster(settings: Config, kind: str | None) -> ClusterOptions:
    if kind is None or kind == settings.cluster.kind:
        return settings.cluster
    from glaciercube.cluster import ClusterOptions

    # Workers, memory and keywords of one kind of cluster mean nothing to another.
    return ClusterOptions(kind, wait=settings.cluster.wait)


def _shards(count: int) -> str:
    return f"{count} shard{'s' * (count != 1)}"


def _groups(frame: pd.DataFrame, name: str) -> list[tuple[str, pd.DataFrame]]:
    groups = sorted(((str(key), some) for key, some in frame.groupby(name)), key=lambda each: -len(each[1]))
    if len(groups) > _TOLD:
        click.echo(f"  the {_TOLD} most frequent of {len(groups)}; --csv writes all")
    return groups[:_TOLD]


def _dates(some: pd.DataFrame) -> str:
    first, last = some["time"].min(), some["time"].max()
    return f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
