"""What a private Slurm cluster is told: everything lies in one folder, listens on loopback only.

Beside another Slurm of the host it touches nothing: it has ports, a munge socket and a key of its
own. Its nodes are virtual: their CPUs are declared, not counted, so that several fit on a laptop.
"""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_scale.errors import SslScaleError

LOOPBACK = "127.0.0.1"
# Slurm delays a requeued job by the time a credential lives plus a second; its default is 121 s.
CREDENTIAL_S = 5
# Slurm's default makes a rehearsal of a dead node wait for five minutes.
DOWN_S = 20
LONGEST_SOCKET = 107  # of a Unix socket's path, in bytes


@dataclass(frozen=True)
class Layout:
    """The files of a sandbox.

    Args:
        folder: an absolute path; everything lies below it.
    """

    folder: Path

    def __post_init__(self) -> None:
        # Slurm's configuration has no quotes.
        name = str(self.folder)
        is_plain = all(letter.isalnum() or letter in "/._-+@" for letter in name)
        if not is_plain or len(str(self.socket).encode()) > LONGEST_SOCKET:
            raise SslScaleError(
                "--folder must be an absolute path of at most 90 letters, digits and /._-+@, but "
                f"is {name!r}"
            )

    @property
    def configuration(self) -> Path:
        """Of Slurm; what SLURM_CONF names."""
        return self.folder / "slurm.conf"

    @property
    def records(self) -> Path:
        """The processes that were started."""
        return self.folder / "processes.json"

    @property
    def munge(self) -> Path:
        """Folder of munge's key and socket."""
        return self.folder / "munge"

    @property
    def socket(self) -> Path:
        """Where Slurm asks munge."""
        return self.munge / "socket"

    @property
    def logs(self) -> Path:
        """What the servers have to say, and the history of jobs."""
        return self.folder / "logs"

    def make(self) -> None:
        """Make the folders; only their owner may look into them."""
        for folder in (self.folder, self.munge, self.logs, self.folder / "state"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def node_names(nodes: int) -> list[str]:
    """The names of the virtual nodes."""
    return [f"n{number}" for number in range(1, nodes + 1)]


def slurm_configuration(
    layout: Layout, host: str, ports: Sequence[int], cpus: int, first_job: int
) -> str:
    """The text of slurm.conf.

    Args:
        layout: where files lie.
        host: this machine's name.
        ports: of the controller, then one of each node.
        cpus: that each node claims to have.
        first_job: number of the first job.
    """
    controller, *of_nodes = ports
    names = node_names(len(of_nodes))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr={LOOPBACK} Port={port} CPUs={cpus} "
        "State=UNKNOWN"
        for name, port in zip(names, of_nodes, strict=True)
    )
    return f"""\
ClusterName=sandbox
SlurmctldHost={host}({LOOPBACK})
SlurmctldPort={controller}
FirstJobId={first_job}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={getpass.getuser()}
SlurmdUser={getpass.getuser()}
AuthType=auth/munge
AuthInfo=socket={layout.socket},cred_expire={CREDENTIAL_S}
StateSaveLocation={layout.folder}/state
SlurmdSpoolDir={layout.folder}/spool-%n
SlurmctldPidFile={layout.folder}/slurmctld.pid
SlurmdPidFile={layout.folder}/%n.pid
SlurmctldLogFile={layout.logs}/slurmctld.log
SlurmdLogFile={layout.logs}/%n.log
PlugStackConfig={layout.folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={layout.logs}/jobs.txt
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=10
SlurmdTimeout={DOWN_S}
{nodes}
PartitionName=sandbox Nodes={",".join(names)} Default=YES MaxTime=INFINITE State=UP
"""
