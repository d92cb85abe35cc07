"""Slurm's accounting for the test cluster: slurmdbd over a MariaDB of its own, both on the login node.

The database has the system tables and no users: it is made in a second, listens on a socket of that host alone, and is
thrown away with the cluster. What was found by trying: slurmdbd stores procedures, so mysql.proc must be there; the
controller does not start with accounting before the cluster has been added to it.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from tests.cluster.network import SEARCH

if TYPE_CHECKING:
    from tests.slurm.slurm import Slurm

PROGRAMS = ("mariadbd", "slurmdbd", "sacctmgr", "sacct")
TABLES = "/usr/share/mysql/mysql_system_tables.sql"
DATABASE = "--no-defaults --datadir={folder} --user=root --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0"
DAEMON = """\
AuthType=auth/munge
DbdHost=node4
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile=/run/slurmdbd.pid
"""
CONTROLLER = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=node4
AccountingStorageEnforce=associations,limits,qos
"""


def accounting_obstacle() -> str:
    """Why there is no accounting here, in a few words; "" where there can be."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SEARCH)]
    return f"needs the commands {', '.join(missing)}" if missing else ""


class Accounting:
    """The books of `slurm`, from now until `close`. The user has account `lab`, and in qos `one` one job at a time."""

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        self._login = slurm.login
        self._folder = slurm.folder / "books"
        self._plain = (slurm.folder / "etc" / "slurm.conf").read_text()
        data = self._folder / "data"
        data.mkdir(parents=True)
        database = DATABASE.format(folder=data)
        self._root(
            f"(printf 'create database mysql;\\nuse mysql;\\n'; cat {TABLES}) | mariadbd {database} --bootstrap && "
            "mkdir -p /run/mysqld"
        )
        self._root(
            f"setsid mariadbd {database} --skip-grant-tables --skip-networking --socket=/run/mysqld/mysqld.sock "
            f"--pid-file=/run/mysqld/pid </dev/null >{self._folder}/mariadbd.log 2>&1 & "
            "for i in $(seq 600); do [ -S /run/mysqld/mysqld.sock ] && exit; sleep 0.1; done; exit 1"
        )
        config = slurm.folder / "etc" / "slurmdbd.conf"
        config.write_text(DAEMON.format(folder=self._folder))
        config.chmod(0o600)
        (slurm.folder / "etc" / "slurm.conf").write_text(self._plain + CONTROLLER)
        self.start()
        self._manage("add cluster test")
        self._manage("add account lab cluster=test description=lab organization=lab")
        self._manage("add qos one set MaxJobsPerUser=1")
        self._manage(f"add user {slurm.cluster.user} cluster=test account=lab qos=normal,one defaultqos=normal")
        self._restart()

    def _root(self, text: str) -> str:
        return self._login.run(text, root=True).stdout

    def _manage(self, words: str) -> None:
        self._root(f"sacctmgr -i {words}")

    def _restart(self) -> None:
        """The controller anew, with the slurm.conf that is there and all that it knew."""
        self._slurm.await_idle()
        self._root("scontrol shutdown slurmctld")  # which saves what it knows; killed, it would have old jobs run on
        self._slurm.kill("slurmctld", 0)
        self._slurm.start_controller()
        self._slurm.await_idle()

    def start(self) -> None:
        """Start slurmdbd, and wait until it answers."""
        self._root("slurmdbd")
        deadline = time.monotonic() + 60
        while (asked := self._login.run(["sacctmgr", "-n", "show", "qos"], root=True, check=False)).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(asked.stderr + (self._folder / "slurmdbd.log").read_text()[-3000:])
            time.sleep(0.2)

    def stop(self) -> None:
        """slurmdbd is away; the controller goes on, and keeps what it has to tell."""
        self._slurm.kill("slurmdbd")

    def close(self) -> None:
        """No accounting any more."""
        (self._slurm.folder / "etc" / "slurm.conf").write_text(self._plain)
        self._restart()
        self._slurm.kill("slurmdbd")
        self._slurm.kill("mariadbd")
