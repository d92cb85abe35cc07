"""Checkpoints: whole or not there at all, and known to be whole by a checksum in their name.

    OUT/checkpoints/step-00000100.main.1a2b3c4d.pt     model, optimizer, step; written by rank 0, after
    OUT/checkpoints/step-00000100.rank3.5e6f7a8b.pt    every rank's random state and what its gradient hook keeps

Each is written beside, synced, and renamed to the CRC-32 of its bytes; torch.load reads it like any other. So a
checkpoint whose main file is there is complete, and one that the disk has damaged is found out. Nodes may share OUT or
have one each: only rank 0 reads main files, and sends what is in them to the others.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from engine.train.errors import ConfigError
from engine.train.ranks import broadcast, gathered, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.train.world import World

NAME = re.compile(r"step-(\d{8,})\.(main|rank\d+)\.([0-9a-f]{8})\.pt")
FOLDER = "checkpoints"
DAMAGED = "it cannot be read, or its bytes are not those that were written"
AGAIN = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")  # how often this run has been started again


class Loaded(NamedTuple):
    """What was read: `main` for all ranks, `own` for this one (None: of another world size, or its file is gone)."""

    main: dict[str, Any]
    own: dict[str, Any] | None


class Summing(io.RawIOBase):
    """A file that is being written, and the CRC-32 of what has been."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file = file
        self.crc = 0

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)


def write(folder: Path, step: int, part: str, state: dict[str, Any]) -> Path:
    """Writes one file of a checkpoint; OSError where that fails, and then nothing is left."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"writing.{part}"
    try:
        with beside.open("wb") as file:
            summing = Summing(file)
            torch.save(state, summing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"step-{step:08d}.{part}.{summing.crc:08x}.pt"
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)
    return path


def read(path: Path) -> bytes | None:
    """The bytes of a file of a checkpoint; None when they are not those that were written, or cannot be read."""
    found = NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if found and zlib.crc32(data) == int(found.group(3), 16) else None


def files(folder: Path, part: str) -> dict[int, list[Path]]:
    """The files of a part by step, the newest step first."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob(f"step-*.{part}.*.pt"), reverse=True):
        if match := NAME.fullmatch(path.name):
            found.setdefault(int(match.group(1)), []).append(path)
    return dict(sorted(found.items(), reverse=True))


def decoded(data: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


class Checkpoints:
    """The checkpoints of a run in `out`; all ranks call `save` and `load` together."""

    def __init__(self, out: str, world: World, device: torch.device, keep: int, note: Callable[[str], None]) -> None:
        self.out = out
        self.folder = Path(out).expanduser() / FOLDER
        self.world = world
        self.device = device
        self.keep = keep
        self.note = note
        self.last = -1  # the step of the newest

    def save(self, step: int, main: dict[str, Any], own: dict[str, Any]) -> None:
        """Writes a checkpoint, then removes those beyond `keep`. A full disk costs the checkpoint, not the run."""
        if step == self.last:
            return
        if not self.all_well(lambda: write(self.folder, step, f"rank{self.world.rank}", own), step):
            return
        if not self.all_well(lambda: self.world.rank == 0 and write(self.folder, step, "main", main), step):
            return
        self.last = step
        for part in ("main", f"rank{self.world.rank}") if self.world.rank == 0 else (f"rank{self.world.rank}",):
            for paths in list(files(self.folder, part).values())[self.keep :]:
                for path in paths:
                    path.unlink(missing_ok=True)
        if self.world.rank == 0:
            self.note(f"checkpoint: step {step} in {self.folder}")

    def all_well(self, action: Callable[[], object], step: int) -> bool:
        problem = None
        try:
            action()
        except OSError as error:
            problem = error
            self.note(f"warning: rank {self.world.rank} cannot write the checkpoint of step {step}: {error}")
        return not any(bad for (bad,) in gathered((problem is not None,), self.device))

    def resume(self, asked: str | None) -> Loaded | None:
        """What the run goes on from; None: it starts anew.

        A run that torchrun or Slurm has started again goes on with its own checkpoints, if there are any yet. Else it
        is what `--resume` names: a checkpoint, or the `out` of a run; "" for this run's. ConfigError where that holds
        none, or where this run would write among another's.
        """
        if asked == "" and not self.out:
            raise ConfigError("--resume without a path looks in out, and out is not set")
        again = any(int(os.environ.get(name) or 0) for name in AGAIN)
        sources = [self.folder] if self.out and (again or asked == "") else []
        if asked:
            path = Path(asked).expanduser()
            sources.append(path if path.suffix == ".pt" else path / FOLDER)
        source, loaded = None, None
        for source in sources:
            if loaded := self.load(source):
                break
        if asked and not loaded:
            raise ConfigError(f"--resume {asked}: there is no whole checkpoint in {source}")
        if self.out and not (loaded and source == self.folder):
            with together(self.device):
                self.refuse_to_mix(loaded.main["step"] if loaded else -1)
        return loaded

    def refuse_to_mix(self, step: int) -> None:
        """ConfigError on rank 0 where a run that begins after `step` would write among newer checkpoints."""
        newest = max(files(self.folder, "main"), default=-1) if self.world.rank == 0 else -1
        if newest > step:
            raise ConfigError(
                f"{self.folder} holds the checkpoints of a run up to step {newest}; "
                "go on with it (--resume), or set out to another folder"
            )

    def load(self, source: Path) -> Loaded | None:
        """The newest whole checkpoint in `source`, a main file or a folder of them; None where there is none."""
        candidates = self.candidates(source)
        while True:
            data = broadcast(next(candidates, None), self.device)
            if data is None:
                return None
            main = decoded(data)
            own, torn = None, False
            if main["ranks"] == self.world.ranks:
                own, torn = self.own(source.parent if source.suffix == ".pt" else source, main["step"])
            if not any(bad for (bad,) in gathered((torn,), self.device)):
                self.last = main["step"]
                return Loaded(main, own)

    def candidates(self, source: Path) -> Iterator[bytes]:
        """On rank 0 the main files that are whole, the newest first."""
        if self.world.rank != 0:
            return
        for path in [source] if source.is_file() else [p for paths in files(source, "main").values() for p in paths]:
            data = read(path)
            if data is None:
                self.note(f"warning: {path} is passed over: {DAMAGED}")
            else:
                yield data

    def own(self, folder: Path, step: int) -> tuple[dict[str, Any] | None, bool]:
        """What this rank wrote of a checkpoint, and whether that is damaged."""
        part = f"rank{self.world.rank}"
        paths = files(folder, part).get(step, [])
        for data in filter(None, map(read, paths)):
            return decoded(data), False
        if paths:
            self.note(f"warning: {paths[0]} is passed over: {DAMAGED}")
        else:
            self.note(f"warning: no {part} of step {step} in {folder}: its random and compression state start anew")
        return None, bool(paths)
