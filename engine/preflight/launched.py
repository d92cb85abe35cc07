"""What a node's probe says of the launch's own environment and program, typed; part of an `Observation`."""

from __future__ import annotations

import shlex
from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Words = Annotated[tuple[str, ...], Meta(max_length=1024)]


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """The file system that a folder is on; `free` in bytes, None where it cannot be told."""

    path: str = ""
    free: Count | None = None
    inodes: Count | None = None
    device: int = 0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A Python environment with a torchrun, in the folder `prefix`; `venv`: with a bin/activate."""

    prefix: str
    venv: bool = False
    torch: str = ""

    @property
    def activate(self) -> str:
        """The line that activates it."""
        path = shlex.quote(self.prefix)
        return f"source {path}/bin/activate" if self.venv else f"export PATH={path}/bin:$PATH"


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """The launch's own environment; `code` is the exit status of a step that failed, `output` what it printed.

    `nofile` and `memlock` [bytes] are the limits that the activation leaves; -1 for none, None where it is not known.
    `environments` are others that could be activated.
    """

    error: str = ""
    workdir: str = ""
    workdir_ok: bool = False
    activated: bool = False
    code: int | None = None
    timed_out: bool = False
    output: str = ""
    cwd: str = ""
    python: str = ""
    python_version: str = ""
    torch: str = ""
    cuda: str = ""
    torchrun: str = ""
    torchrun_flags: Words = ()
    nccl: str = ""
    xtuner: str = ""
    xtuner_command: str = ""
    nofile: int | None = None
    memlock: int | None = None
    set: dict[str, str] = {}
    environments: Annotated[tuple[Environment, ...], Meta(max_length=64)] = ()

    @property
    def looked(self) -> bool:
        """Whether Python came up after the activation, so that an empty field means "not there"."""
        return self.activated and not self.error


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """What the program trains on: at most so many `samples` (None: not known), of which a rank takes `share` a step as
    its own settings say (0: they do not)."""

    data: str = ""
    samples: Count | None = None
    share: Count = 0


class ProgramFile(msgspec.Struct, frozen=True, kw_only=True):
    """The entry script, config, module or command; `sha256` is "" where it is not compared.

    `files` are sums of the sources beside it and of the files among its arguments, `whole` says that none is left out;
    `disk` is that of the working folder, `missing` are configs among the arguments that are not there.
    """

    error: str = ""
    kind: str = ""
    path: str = ""
    exists: bool = False
    is_file: bool = False
    size: Count | None = None
    sha256: str = ""
    files: Annotated[dict[str, str], Meta(max_length=1024)] = {}
    whole: bool = True
    disk: Disk = Disk()
    fed: Fed = Fed()
    missing: Words = ()
