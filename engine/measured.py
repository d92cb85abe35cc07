"""The measured steps in logs that anybody's run left: one record a step, of the rank that printed it.

A trainer may say one step in two places: the Hugging Face Trainer prints its losses without a step, and the step in a
progress bar around them. The two are put together. What a trainer reports of the whole run at its end is no step.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.alarms import Alarm, Beat, alarms
from engine.errors import RequestError
from engine.evidence import WORKER, folders
from engine.node.metrics import LINE_LIMIT, MetricReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

LOOK = 1 << 20
"""Bytes at the beginning of a file in which the size of the run is looked for."""
TEED = re.compile(rb"^(?:[^\[\n]{1,80})?\[(?!rank)[A-Za-z_]{1,32}(\d{1,5})\]:", re.M)
WORLD = re.compile(rb"world[_ ]size[:=] ?(\d{1,7})", re.I)
FROM_RANK_0 = frozenset(
    ("mmengine", "nanogpt", "hf trainer summary", "automodel", "lightning rich", "rankdeck", "composer")
)
"""Formats that rank 0 alone prints."""
OVER_ALL = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


class Measured(msgspec.Struct, kw_only=True):
    """One measured step. Times in seconds, memory in GiB, mfu in percent; `line` counts from 1.

    `rank` is the global one: as the line is marked, else the one that prints by convention, which is rank 0 of the
    first node's log unless its trainer is known for another; None where several print without marks.
    `rate` is in `rate_unit`, which says whether it is of one GPU (`tokens/s/gpu`) or of all ranks (`tokens/s`,
    `samples/s`, `it/s`).
    """

    path: str
    line: int
    rank: int | None = None
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    step_time_s: float | None = None
    rate: float | None = None
    rate_unit: str | None = None
    epoch: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    data_time_s: float | None = None
    comm_time_s: float | None = None
    memory_gib: float | None = None
    eta_s: float | None = None
    mfu: float | None = None
    tflops: float | None = None
    extra: dict[str, float] = {}

    @property
    def counted(self) -> bool:
        """Is it a bar that counts steps, and measures no loss?"""
        return self.step is not None and self.loss is None

    def take(self, other: Measured) -> None:
        """Fill what is not known with what `other` knows of the same step."""
        for name in self.__struct_fields__[2:-1]:
            if getattr(self, name) is None:
                setattr(self, name, getattr(other, name))
        self.extra = {**other.extra, **self.extra}


class Summary(msgspec.Struct, kw_only=True):
    """All steps together: the last loss, and step time and rate as averages over the steps.

    `reported` is what the trainer says of the whole run itself.
    """

    summary: bool = True
    paths: tuple[str, ...]
    steps: int
    ranks: tuple[int, ...] = ()
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    step_time_s: float | None = None
    rate: float | None = None
    rate_unit: str | None = None
    reported: dict[str, float | str] = {}
    alarms: tuple[Alarm, ...] = ()


class Average(msgspec.Struct):
    """The mean of what a step took, where a line speaks of the steps since the line before."""

    total: float = 0.0
    steps: int = 0

    def add(self, value: float, steps: int) -> None:
        if math.isfinite(value):
            self.total += value * steps
            self.steps += steps

    @property
    def value(self) -> float | None:
        return self.total / self.steps if self.steps else None


class Log(msgspec.Struct):
    """One file of a node."""

    name: str
    node: int
    local_rank: int | None = None


class Reading:
    """Reads the logs behind `paths`, in the order of the node ranks; `summary` is of what has been read."""

    def __init__(self, paths: Iterable[str], pattern: str | None = None) -> None:
        """RequestError for a path that is not there, or a folder without logs."""
        self.paths = tuple(paths)
        self._pattern = pattern
        self._logs = list(_logs(self.paths))
        self._per_node, self._world = _sizes(self._logs)
        self._beats: dict[int | None, list[Beat]] = {}
        self._last: Measured | None = None
        self._before: dict[int | None, int] = {}
        self._rates: dict[str, Average] = {}
        self._times = Average()
        self._reported: dict[str, float | str] = {}
        self._steps = 0
        self._printer: int | None = None
        self._closing: float | None = None

    def __iter__(self) -> Iterator[Measured]:
        for node, logs in self._together():
            by_rank: dict[int | None, list[Measured]] = {}
            self._printer = None
            for one in itertools.chain.from_iterable(map(self._read, logs)):
                by_rank.setdefault(one.rank, []).append(one)
            unmarked = by_rank.get(None, [])
            if self._printer is None and node == 0 and not _several(unmarked):
                self._printer = 0
            for one in unmarked:
                one.rank = self._printer if self._printer != UNKNOWN else None
            epochs = self._reported.get("epoch")
            last_epoch = epochs if isinstance(epochs, float) else None
            found = [one for entries in by_rank.values() for one in folded(entries, last_epoch)]
            for one in sorted(found, key=lambda one: (one.path, one.line)):
                self._count(one)
                yield one

    def _together(self) -> Iterator[tuple[int, list[Log]]]:
        """The logs of each node, the two streams of a worker together."""
        for log in self._logs:
            if log.local_rank is None:
                yield log.node, [log]
        workers = [log for log in self._logs if log.local_rank is not None]
        for (node, _), logs in itertools.groupby(workers, key=lambda log: (log.node, Path(log.name).parent)):
            yield node, list(logs)

    def _read(self, log: Log) -> Iterator[Measured]:
        reader = MetricReader(self._pattern)
        held: Measured | None = None
        number = 1
        with _opened(log.name) as file:
            while True:
                piece = file.readline(LINE_LIMIT)
                for metric in reader.feed(piece) if piece else reader.flush():
                    if not reader.grew and held is not None:
                        yield held
                    extra = metric.get("extra", {})
                    if any(name in extra for name in OVER_ALL) or reader.form == "hf trainer summary":
                        self._report(metric)
                        held = None
                        continue
                    held = self._measured(log, number, reader, metric)
                if not piece:
                    break
                number += piece.endswith(b"\n")
        if held is not None:
            yield held

    def _measured(self, log: Log, number: int, reader: MetricReader, metric: dict[str, Any]) -> Measured:
        fields = {NAMES.get(name, name): value for name, value in metric.items()}
        if reader.form == "bar" and metric.get("step") == metric.get("total") and metric.get("rate_unit") == "it/s":
            self._closing = metric["rate"]  # a bar that is closed shows the average over all of it
        rank, local_rank = reader.rank, reader.local_rank if reader.local_rank is not None else log.local_rank
        if rank is None and local_rank is not None:
            rank = log.node * self._per_node + local_rank
        elif rank is None and reader.form == "megatron":
            self._printer = self._world - 1 if self._world else UNKNOWN
        elif rank is None and (reader.form in FROM_RANK_0 or _trainer_dict(metric)):
            self._printer = 0
        return Measured(path=log.name, line=number, rank=rank, **fields)

    def _report(self, metric: dict[str, Any]) -> None:
        self._reported.update({name: value for name, value in metric.items() if name != "extra"})
        self._reported.update(metric.get("extra", {}))

    def _count(self, one: Measured) -> None:
        self._steps += 1
        # Steps may be counted within an epoch: of one rank the newest line is the newest.
        if self._last is None or one.rank == self._last.rank or _place(one) >= _place(self._last):
            latest = msgspec.structs.replace(one)
            if self._last is not None:
                latest.take(self._last)
            self._last = latest
        before = self._before.get(one.rank, 0)
        steps = max(1, (one.step or 0) - (before if before < (one.step or 0) else 0))
        self._before[one.rank] = one.step or 0
        if one.rate and one.rate_unit:
            self._rates.setdefault(one.rate_unit, Average()).add(1 / one.rate, steps)
        if one.step_time_s is not None:
            self._times.add(one.step_time_s, steps)
        beat = Beat(
            step=one.step, loss=one.loss, rate=one.rate, unit=one.rate_unit or "", step_time=one.step_time_s,
            data_time=one.data_time_s, comm_time=one.comm_time_s,
        )  # fmt: skip
        self._beats.setdefault(one.rank, []).append(beat)

    @property
    def summary(self) -> Summary:
        unit = max(self._rates, key=lambda unit: self._rates[unit].steps, default=None)
        inverse = self._rates[unit].value if unit else None
        step_time = self._times.value
        if unit == "it/s" and self._closing:
            step_time = inverse = 1 / self._closing
        last = self._last
        return Summary(
            paths=self.paths,
            steps=self._steps,
            ranks=tuple(sorted(rank for rank in self._beats if rank is not None)),
            step=last.step if last else None,
            total=last.total if last else None,
            loss=last.loss if last else None,
            step_time_s=step_time,
            rate=1 / inverse if inverse else None,
            rate_unit=unit,
            reported=self._reported,
            alarms=tuple(alarms(self._beats)),
        )


UNKNOWN = -1
NAMES = {"step_time": "step_time_s", "data_time": "data_time_s", "comm_time": "comm_time_s", "eta": "eta_s"}


def folded(entries: list[Measured], last_epoch: float | None = None) -> list[Measured]:
    """The steps of one rank in the order of its log, what is said of one step in one record.

    `last_epoch` is where the training ended, by its own report.
    """
    losses = [one for one in entries if one.loss is not None]
    if 2 * sum(one.step is None for one in losses) > len(losses) and any(one.counted for one in entries):
        if {one.path for one in entries if one.counted}.isdisjoint(one.path for one in losses):
            return _by_epoch(entries, last_epoch)
        return _around(entries)
    kept: list[Measured] = []
    for one in entries:
        if one.loss is None and one.rate is None and one.step_time_s is None:
            continue
        last = kept[-1] if kept else None
        same = last is not None and one.step is not None and (one.step, one.total) == (last.step, last.total)
        # A bar is drawn with the step that is over before it has that step's loss.
        drawn_anew = last is not None and one.eta_s is not None and (one.path, one.line) == (last.path, last.line)
        if last is not None and same and (drawn_anew or one.loss is None or last.loss in (None, one.loss)):
            one.take(last)
            kept[-1] = one
            continue
        kept.append(one)
    return kept


def _around(entries: list[Measured]) -> list[Measured]:
    """Losses without a step, between the states of a bar: the bar is drawn anew behind each, and so knows its step."""
    # Of several bars, that of the training is the one that is most often drawn just before a loss.
    before_a_loss: Counter[int] = Counter()
    newest = 0
    for one in entries:
        if one.counted:
            newest = one.total or 0
        elif one.loss is not None:
            before_a_loss[newest] += 1
    total = before_a_loss.most_common(1)[0][0]
    bars = [(at, one) for at, one in enumerate(entries) if one.counted and (one.total or 0) == total]
    kept: list[Measured] = []
    place = 0
    for at, one in enumerate(entries):
        if one.loss is None:
            continue
        while place < len(bars) and bars[place][0] < at:
            place += 1
        if one.step is None:
            before = bars[place - 1][1] if place else None
            behind = bars[place][1] if place < len(bars) and not _loss_between(entries, at, bars[place][0]) else None
            for bar in (behind, before):
                if bar is not None:
                    one.take(bar)
        kept.append(one)
    return kept


def _by_epoch(entries: list[Measured], last_epoch: float | None) -> list[Measured]:
    """Losses in one file, and the bar that counts their steps in another: the epochs say where in the run each is."""
    losses = [one for one in entries if one.loss is not None]
    bars = [one for one in entries if one.counted]
    total = bars[-1].total
    if not last_epoch or not total or bars[-1].step != total or any(one.epoch is None for one in losses):
        return losses
    # A trainer logs every so many steps, and prints the epoch rounded.
    exact = [(one.epoch or 0.0) / last_epoch * total for one in losses]
    rounded = 0.011 / last_epoch * total
    for every in (round(exact[-1] / len(exact)), total // len(exact)):
        steps = [every * number for number in range(1, len(exact) + 1)]
        if all(abs(step - about) <= rounded + 0.01 * step for step, about in zip(steps, exact, strict=True)):
            break
    else:
        steps = [round(about) for about in exact]
    place = 0
    for one, step in zip(losses, steps, strict=True):
        while place < len(bars) - 1 and (bars[place].step or 0) < step:
            place += 1
        one.step = step
        one.take(bars[place])
    return losses


def _loss_between(entries: list[Measured], first: int, last: int) -> bool:
    return any(one.loss is not None for one in entries[first + 1 : last])


def _place(one: Measured) -> tuple[float, int]:
    return one.epoch or 0.0, one.step or 0


def _several(entries: list[Measured]) -> bool:
    """Do several ranks print here? Then one step has several losses, which are not a bar's that is drawn anew."""
    lines = [one for one in entries if one.loss is not None and one.eta_s is None and one.step is not None]
    return any(a.step == b.step != a.total and a.loss != b.loss for a, b in itertools.pairwise(lines))


def _trainer_dict(metric: dict[str, Any]) -> bool:
    """Is it a line of the Hugging Face Trainer, which prints on rank 0?"""
    return "loss" in metric and "epoch" in metric and "step" not in metric and "lr" in metric


def _logs(paths: Iterable[str]) -> Iterator[Log]:
    node = 0
    known: dict[str, int] = {}  # folders of workers whose files are named one by one
    for name in paths:
        path = Path(name)
        if name != "-" and path.is_dir():
            groups = list(folders(path))
            if not groups:
                raise RequestError(f"{name}: no logs in this folder", remedy="name the files, or torchrun's --log_dir")
            for group in groups:
                for file in group:
                    found = WORKER.search(str(file))
                    if found is None or found[3]:
                        yield Log(str(file), node, int(found[2]) if found else None)
                node += 1
            continue
        if name != "-" and not path.exists():
            raise RequestError(f"{name}: {os.strerror(errno.ENOENT)}")
        found = WORKER.search(name)
        if found and found[3]:
            root = name[: found.start()]
            node += root not in known
            yield Log(name, known.setdefault(root, node - 1), int(found[2]))
            continue
        yield Log(name, node)
        node += 1


def _opened(name: str) -> BinaryIO:
    try:
        return Path("/dev/stdin" if name == "-" else name).open("rb")
    except OSError as error:
        raise RequestError(f"{name}: {error.strerror}") from None


def _sizes(logs: Iterable[Log]) -> tuple[int, int]:
    """(ranks on a node, ranks of the run or 0), as far as the beginnings of the files tell."""
    highest, world = 0, 0
    for log in logs:
        highest = max(highest, log.local_rank or 0)
        if log.name == "-":
            continue
        with _opened(log.name) as file:
            data = file.read(LOOK)
        highest = max([highest, *(int(number) for number in TEED.findall(data))])
        world = max([world, *(int(number) for number in WORLD.findall(data))])
    return highest + 1, world
