"""Log files of a run that anybody launched -> what diagnosis reads: one text file a node, or folders of --log_dir.

A path is one node's, in the order of the node ranks, unless it holds several: a folder with a --log_dir in each of its
folders, or one file in which srun or pdsh put every node's lines together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.diagnosis import Source
from engine.diagnosis.marks import ANSI, marks
from engine.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEAD = 8 << 20
TAIL = 56 << 20
"""Bytes that are read of a larger file: from its beginning, and from its end."""

WORKER = re.compile(r"attempt_(\d+)/(\d+)/(stdout|stderr)\.log|attempt_(\d+)/(\d+)/error\.json")
SAME_RUN = 600.0
"""Seconds between the last writes of two folders in one --log_dir that are of one run."""


def read_sources(paths: Iterable[str]) -> list[Source]:
    """The sources behind the paths. RequestError for a path that is not there."""
    sources: list[Source] = []
    node_rank = 0
    for name in paths:
        path = Path(name)
        try:
            groups = list(folders(path)) if path.is_dir() else [[path]]
            if not groups:
                raise RequestError(
                    f"{name}: no logs of torchrun in this folder", remedy="name the files, or its --log_dir"
                )
            for group in groups:
                sources += [source for file in group for source in _file(file, path, node_rank)]
                node_rank += 1
        except OSError as error:
            raise RequestError(f"{error.filename or name}: {error.strerror}") from None
    if node_rank == 1 and len(sources) == 1 and sources[0].kind == "console":
        return _by_label(sources[0])
    return sources


def _file(file: Path, shown: Path, node_rank: int) -> Iterator[Source]:
    # The file as the user would name it.
    name = str(file)
    found = WORKER.search(name)
    size = file.stat().st_size
    with file.open("rb") as log:
        whole = log.read(HEAD + TAIL) if size <= HEAD + TAIL else b""
        pieces = [(whole, 1, 0)] if size <= HEAD + TAIL else list(_ends(log, size))
    kind: Literal["record", "worker", "console"]
    for data, line, offset in pieces:
        if found is None:
            yield Source(name=name, node_rank=node_rank, data=data, line=line, offset=offset)
            continue
        kind = "record" if found[4] else "worker"
        attempt, local_rank = int(found[1] or found[4] or 0), int(found[2] or found[5] or 0)
        yield Source(
            name=name,
            node_rank=node_rank,
            data=data,
            kind=kind,
            local_rank=local_rank,
            attempt=attempt,
            line=line,
            offset=offset,
        )


def _ends(log: object, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Beginning and end of a large file, each with the line and offset that it begins with."""
    from typing import BinaryIO, cast

    file = cast("BinaryIO", log)
    file.seek(0)
    head = file.read(HEAD)
    yield head, 1, 0
    lines, at = head.count(b"\n"), HEAD
    while at < size - TAIL:
        piece = file.read(min(1 << 20, size - TAIL - at))
        if not piece:
            break
        lines += piece.count(b"\n")
        at += len(piece)
    tail = file.read(TAIL)
    cut = tail.find(b"\n") + 1
    yield tail[cut:], lines + 2, at + cut


def folders(path: Path) -> Iterator[list[Path]]:
    """The files of each node below a folder."""
    roots: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*"), key=lambda file: _natural(str(file))):
        if not file.is_file():
            continue
        place = file.resolve() if not file.is_absolute() else file
        if WORKER.search(str(place)):
            attempt = next(parent for parent in file.parents if parent.name.startswith("attempt_"))
            roots.setdefault(attempt.parent, []).append(file)
    by_parent: dict[Path, list[Path]] = {}
    for root in roots:
        by_parent.setdefault(root.parent, []).append(root)
    for parent in sorted(by_parent, key=lambda folder: _natural(str(folder))):
        beside = [
            file
            for folder in ({parent, parent.parent} if parent.name == "ranks" else {parent})
            for file in folder.glob("*")
            if file.is_file() and file.suffix in (".log", ".txt", ".out", ".err", "") and folder != path.parent
        ]
        runs = _one_run(by_parent[parent])
        for count, root in enumerate(runs):
            yield [*roots[root], *(sorted(beside) if count == 0 else [])]
    if not roots:
        files = [file for file in sorted(path.iterdir(), key=lambda file: _natural(file.name)) if file.is_file()]
        yield from ([file] for file in files if file.suffix in (".log", ".txt", ".out"))


def _one_run(roots: list[Path]) -> list[Path]:
    """Of the folders that torchrun made in one --log_dir, those of the newest run: several where nodes share it."""
    written = {
        root: max((file.stat().st_mtime for file in root.rglob("*") if file.is_file()), default=0.0) for root in roots
    }
    newest = max(written.values(), default=0.0)
    return [root for root in roots if newest - written[root] <= SAME_RUN]


def _natural(name: str) -> list[int | str]:
    """node2 before node10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _by_label(source: Source) -> list[Source]:
    """One file with the lines of several nodes: a source for each, with blank lines where others wrote.

    A number is srun's for its task, and one torchrun a node is a task: it is the node rank.
    """
    raws = source.data.split(b"\n")
    texts = [ANSI.sub("", raw.decode("utf-8", "replace")) for raw in raws]
    known = marks(texts)
    owners = [known.off(text)[1] for text in texts]
    words = sorted({word for word in owners if word}, key=_natural)
    ranks = {word: int(word) if known.words == {"#"} else count for count, word in enumerate(words)}
    if len(words) < 2 and set(ranks.values()) <= {0}:
        return [source]
    first = min(ranks.values())
    parts: dict[int, list[bytes]] = {node_rank: [] for node_rank in ranks.values()}
    for raw, word in zip(raws, owners, strict=True):
        owner = ranks.get(word, first)
        for node_rank, part in parts.items():
            part.append(raw if node_rank == owner else b"")
    return [
        msgspec.structs.replace(source, node_rank=node_rank, data=b"\n".join(part)) for node_rank, part in parts.items()
    ]
