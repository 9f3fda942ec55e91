"""A SLURM of one node, which is this machine; its controller, its daemon and munge are our own."""

from __future__ import annotations

import getpass
import importlib.util
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from services.process import HOST, Missing, free_ports, program, running, scratch

__all__ = ["Slurm", "slurm"]

_CONFIG = """
ClusterName=glaciercube
SlurmctldHost={name}({host})
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
NodeName={name} NodeAddr={host} CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running SLURM.

    Attributes
    ----------
    environ : mapping
        The variables by which its client programs find it.
    """

    environ: Mapping[str, str] = field(repr=False)

    def queue(self) -> list[str]:
        """The jobs that wait or run, a line each."""
        return self._asked("squeue", "--noheader").splitlines()

    def ready(self) -> bool:
        """Whether its node takes jobs."""
        return self._asked("sinfo", "--noheader", "--format", "%T").strip() == "idle"

    def cancel(self) -> None:
        """End all jobs."""
        self._asked("scancel", "--user", getpass.getuser())

    def _asked(self, name: str, *arguments: str) -> str:
        environ = {**os.environ, **self.environ}
        done = subprocess.run([program(name), *arguments], env=environ, capture_output=True, text=True, check=False)
        return done.stdout


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Run SLURM for as long as the context lasts.

    Raises
    ------
    Missing
        If SLURM, munge or dask-jobqueue is not installed.
    """
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise Missing("dask_jobqueue is not installed (make install-services)")
    munged, controller, daemon = (program(name) for name in ("munged", "slurmctld", "slurmd"))
    for client in ("sbatch", "squeue", "scancel", "sinfo"):
        program(client)
    ports, name = free_ports(2), socket.gethostname().partition(".")[0]
    with ExitStack() as stack:
        folder = stack.enter_context(scratch("slurm"))
        key, config = folder / "munge.key", folder / "slurm.conf"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for part in ("state", "spool", "munge", "controller", "daemon"):
            (folder / part).mkdir()
        user = getpass.getuser()
        config.write_text(
            _CONFIG.format(name=name, host=HOST, controller=ports[0], daemon=ports[1], user=user, folder=folder)
        )
        server = Slurm({"SLURM_CONF": str(config)})
        files = {"key": key, **{name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}}
        names = {"pid": "pid-file", "log": "log-file", "seed": "seed-file", "key": "key-file", "socket": "socket"}
        # --force: its folder is nobody else's, which it does not believe.
        flags = ["--foreground", "--force", *(f"--{names[name]}={path}" for name, path in files.items())]
        stack.enter_context(running([munged, *flags], folder=folder / "munge", ready=files["socket"].exists))
        stack.enter_context(
            running([controller, "-D"], folder=folder / "controller", ready=lambda: True, environ=server.environ)
        )
        stack.enter_context(
            running([daemon, "-D"], folder=folder / "daemon", ready=server.ready, environ=server.environ)
        )
        try:
            yield server
        finally:
            server.cancel()
