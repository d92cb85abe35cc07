"""Reads loss, step time and throughput out of the log lines of unmodified trainers.

A line is tried in this order: the user's own pattern, progress bars, the table FORMATS, a JSON object, and a scan for
`key: number` and `key=number`. To add a format, add an entry to FORMATS and a log to the corpus in tests/unit/logs.

Units are said honestly: seconds, GiB (trainers that print "GB" divide by 2**30), percent for mfu, and a rate with its
unit, per GPU (`tokens/s/gpu`) or over all ranks. Steps count as printed: within the epoch where the trainer counts so.
nan and inf are values. An evaluation gives no loss and no rate; what it measures goes to `extra`.
"""

import re
from string import ascii_letters as LETTERS
from types import MappingProxyType
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from engine.node.metric_bars import ENDLESS_BAR, TrainingBar, read_bars
from engine.node.metric_fields import (
    NUMBER,
    PAIR,
    WORD,
    Metric,
    complete,
    from_groups,
    name_fields,
    read_fields,
)
from engine.node.metric_keys import ALIASES, NOT_TRAINING, RATES, Aliases, alias_table, compiled
from engine.node.metric_scan import from_json, from_scan

LINE_LIMIT = 64 * 1024  # bytes; a longer line is skipped whole
READ_LIMIT = 4096  # characters of a line that are looked at; longer ones show a head and a tail of half as many each

ANSI = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
# What a line begins with, by its first character.
PREFIXES = (
    (" 0123456789", r" {0,5}\d{1,6}: "),  # srun --label
    (LETTERS, r"([A-Za-z][\w.-]{0,63}): (?=[\[{\t])"),  # pdsh; not where the word is a key
    ("[", r"\[[A-Za-z_]{1,32}(?<!rank)(?P<local>\d{1,5})\]: ?"),  # torchrun --tee: role and local rank
    ("[", r"\[rank(?P<rank>\d{1,6})\]: ?"),  # torch itself: global rank
)
# What trainers write themselves: the global rank.
OWN_RANK = (
    r"[\[(](?:RANK|Rank|rank)[ :=]?(\d{1,6})[\])]"
    r"|(?:^|(?<=[\s\"',\[({|]))(?:global_)?[Rr]ank[\"']?[:=] ?(\d{1,6})(?![\w.])"
)


class Format(NamedTuple):
    """One trainer's line: both needles occur, `head` is found, and the keys behind it mean `keys` before ALIASES."""

    name: str
    needles: Tuple[str, str]
    head: str  # named groups are fields
    keys: Aliases = MappingProxyType({})
    scan: str = PAIR  # "": the head says all


FORMATS = (
    Format(
        "rankdeck", ("step_time ", "step "), r"\bstep (?P<step>\d+)/(?P<total>\d+)  (?=loss |step_time )", scan=WORD
    ),
    Format(
        "xtuner", ("data_time: ", "Step "), r"(?:Epoch (?P<epoch>\d+) )?Step (?P<step>\d+)/(?P<total>\d+) +data_time:"
    ),
    Format(
        "mmengine",
        ("(train)", "["),
        r"(?:Epoch\(train\) +\[ *(?P<epoch>\d+)\]|Iter\(train\) +)\[ *(?P<step>\d+)/ *(?P<total>\d+)\]",
        alias_table("memory_gib mib <- memory\nrate tokens/s/gpu <- tokens_per_sec"),
    ),
    Format(
        "torchtitan",
        ("step:", "tps:"),
        r"(?<!\w )\bstep: *(?P<step>\d+) +loss:",
        alias_table("rate tokens/s/gpu <- tps"),
    ),
    Format(
        "torchtitan 2024",
        ("step:", "wps:"),
        r"(?<!\w )\bstep: *(?P<step>\d+) +loss:",
        alias_table("rate tokens/s/gpu <- wps"),
    ),
    Format("megatron", ("elapsed time per iteration", "iteration"), r"\biteration +(?P<step>\d+)/ *(?P<total>\d+) *\|"),
    Format(
        "deepspeed",
        ("SamplesPerSec=", "/"),
        r"(?:epoch=(?P<epoch>\d+)/micro_step=\d+/global_step=(?P<step>\d+)|\b\d+/(?P<step2>\d+)), \w*SamplesPerSec=",
    ),
    Format("deepspeed", ("skipped=", "step="), r"\bstep=(?P<step>\d+), skipped=\d+, (?=lr=)"),
    Format(
        "nanogpt",
        ("iter ", ": loss "),
        rf"\biter (?P<step>\d+): loss (?P<loss>{NUMBER}), time (?P<ms>{NUMBER})ms(?:, mfu (?P<mfu>{NUMBER})%)?",
        scan="",
    ),
    Format(
        "nanogpt evaluation",
        ("step ", ": train loss "),
        rf"\bstep (?P<step>\d+): train loss (?P<eval_train_loss>{NUMBER}), val loss (?P<eval_loss>{NUMBER})",
        scan="",
    ),
    Format("hf trainer summary", ("train_runtime", "train_loss"), r"train_runtime", alias_table("extra <- train_loss")),
    Format("hf trainer summary", ("train_loss  ", "="), r"^ *train_loss +=", alias_table("extra <- train_loss")),
    Format(
        "automodel",
        ("| loss ", "step "),
        r"^(?!.{0,80}\[val\]).*?\bstep (?P<step>\d+) \| epoch (?P<epoch>\d+) (?=\| loss )",
        scan=WORD,
    ),
    Format(
        "llama-factory",
        ("'throughput': ", "'learning_rate': "),
        r"\{",
        alias_table("rate tokens/s <- throughput"),
    ),
    Format(
        "llama-factory",
        ('"throughput": ', '"current_steps": '),
        r"\{",
        alias_table("rate tokens/s <- throughput"),
    ),
    Format(
        "mmcv",
        ("]\tlr: ", " time: "),
        r"(?:Epoch \[(?P<epoch>\d+)\]|Iter )\[(?P<step>\d+)/(?P<total>\d+)\]\t",
        alias_table("memory_gib mib <- memory"),
    ),
    Format(
        "timm",
        ("Train: ", "Time: "),
        r"Train: (?P<epoch>\d+) \[ *(?P<step>\d+)/(?P<total>\d+) .{0,120}?Time: [\d.]+s, +(?P<samples>[\d.]+)/s",
    ),
    Format(
        "keras",
        ("loss: ", " - "),
        r"(?<!Epoch )(?<!\d)(?P<step>\d+)/(?P<total>\d+) +(?:\[[=>.]+\] |[\u2501\u2578 ]+)"
        r"(?:- ETA: \S+ |(?:- )?[\d:hms]+ (?P<per_step>\d{1,9}(?:ms|us|s))/step )?(?=- )",
    ),
    Format("pytorch tutorial", ("] loss: ", "["), r"^\[(?P<epoch>\d+), +(?P<step>\d+)\] (?=loss: )"),
    Format(
        "maxtext",
        ("completed step: ", "seconds: "),
        r"completed step: (?P<step>\d+), (?=seconds: )",
        alias_table("step_time <- seconds"),
    ),
    Format("prime-rl", ("| Time: ", "Step "), r"\bStep (?P<step>\d+) (?=\| Time: )"),
    Format(
        "lightning rich",
        ("\u2501", "/"),
        rf"Epoch (?P<epoch>\d+)/\d+ +\u2501[^\d]* (?P<step>\d+)/(?P<total>\d+) .*?(?P<its>{NUMBER})it/s",
    ),
)
NEEDLES = tuple((*form.needles, form) for form in FORMATS)
# What composer and OLMo say in several lines: which step, and a name and a value in each line below.
BLOCK = (
    r"\[epoch=(?P<epoch>\d+)(?:/\d+)?\]\[batch=(?P<step>\d+)/(?P<total>\d+)\]:"
    r"|\[step=(?P<step2>\d+)/(?P<total2>\d+)(?:,epoch=(?P<epoch2>\d+))?[^\]]{0,40}\]$"
)
BLOCK_VALUE = r"[ \t]{1,16}(?:Train )?([\w./()-][\w./ ()-]{0,79})(?:: |=)(\S+)$"
TOKENS_PER_ITERATION = r"tokens per iteration will be: (\d[\d,]{0,20})"  # nanoGPT says it once


def may_hold_metric(line: str) -> bool:
    """Whether a line can hold a metric at all; nearly every line of a real log is sent away here."""
    if "%|" in line:
        return True
    if ("oss" in line and ("loss" in line or "Loss" in line)) or "LOSS" in line:  # and not only "across"
        return not line.startswith("  File ")
    # Of use beside a rate or a time; "ter" first, as few lines have it.
    if "tep" in line or ("ter" in line and ("iter" in line or "Iter" in line)):
        # Written out: any() over a tuple costs three times as much.
        if "ime" in line or "/s" in line or "er_s" in line or "tgs" in line or "tps" in line or "wps" in line:
            return True
        return "skipped=" in line or "will be" in line or "[step=" in line or "dt" in line
    return "/s" in line or "tch=" in line or "amplesPerSec=" in line


class MetricReader:
    """The metrics in one stream of one rank; keeps the unfinished line, and what a trainer says in several lines."""

    def __init__(self, pattern: Optional[str] = None) -> None:
        """`pattern`: the user's regular expression with named groups (fields or aliases); re.error if it is none."""
        self.grew = False  # whether the last metric repeats the one before, with more in it
        self.form = ""  # of the last metric: which entry of FORMATS it was, if any
        self.rank: Optional[int] = None  # and the ranks that its line is marked with
        self.local_rank: Optional[int] = None
        self._pattern = re.compile(pattern) if pattern else None
        self._carry = bytearray()
        self._skipping = False
        self._block: Optional[Metric] = None
        self._tokens_per_iteration = 0
        self._bars: Dict[Tuple[Optional[int], Optional[int]], TrainingBar] = {}

    def feed(self, data: bytes) -> List[Metric]:
        """The metrics of the lines that `data` completes; CR and LF both end a line."""
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        first, newline, rest = data.partition(b"\n")
        if not self._skipping:
            self._carry += first
            if len(self._carry) > LINE_LIMIT:
                self._skipping = True
                self._carry.clear()
        if not newline:
            return []
        whole, _, last = rest.rpartition(b"\n")
        # Decoded as one piece: a look into a str is several times as fast as one into bytes.
        begun = b"" if self._skipping else bytes(self._carry)
        lines = (begun + b"\n" + whole).decode("utf-8", "replace").split("\n")
        self._skipping = len(last) > LINE_LIMIT
        self._carry = bytearray(b"" if self._skipping else last)
        return self._read(lines)

    def flush(self) -> List[Metric]:
        """The metric of the line that has no end, at the end of the stream."""
        line = self._carry.decode("utf-8", "replace")
        self._carry.clear()
        return self._read([line])

    def _read(self, lines: Iterable[str]) -> List[Metric]:
        found: List[Metric] = []
        everything = self._pattern is not None
        for line in lines:
            if everything or may_hold_metric(line) or (self._block is not None and line):
                metric = self.parse(line) if len(line) <= LINE_LIMIT else None
                if metric is None:
                    continue
                if self.grew and found:
                    found[-1] = metric
                else:
                    found.append(metric)
        return found

    def parse(self, line: str) -> Optional[Metric]:
        """The metric in one line without its end, or None."""
        self.grew, self.form = False, ""
        self.rank = self.local_rank = None
        if len(line) > READ_LIMIT:
            line = line[: READ_LIMIT // 2] + "  " + line[-READ_LIMIT // 2 :]
        if "\x1b" in line:
            line = compiled(ANSI).sub("", line)
        line = self._without_prefixes(line)
        if self._pattern is not None:
            named = self._pattern.search(line)
            if named:
                return complete(from_groups(named.groupdict())) or None
        if self._block is not None or "[batch=" in line or "[step=" in line:
            block = self._read_block(line)
            if block is not None:
                return block
        if "will be: " in line:
            said = compiled(TOKENS_PER_ITERATION).search(line)
            if said:
                self._tokens_per_iteration = int(said.group(1).replace(",", ""))
                return None
        bar: Optional[Metric] = None
        if "%|" in line:
            bar, line = read_bars(line)
        elif " [" in line and ("it/s" in line or "s/it" in line):
            bar, line = read_bars(line, ENDLESS_BAR)
        metric = self._from_table(line)
        if metric is None and line.lstrip().startswith("{"):
            metric = from_json(line)
        if metric is None:
            metric = from_scan(line)
        if bar is not None or (metric is not None and "loss" in metric and "step" not in metric):
            of_rank = self._bars.setdefault((self.rank, self.local_rank), TrainingBar())
            if bar is None:
                of_rank.loss_beside()
            elif not of_rank.counts(bar, "loss" in bar or (metric is not None and "loss" in metric)):
                bar = None
        if bar is not None:
            self.form = "bar" if metric is None else self.form
            bar.update(metric or {})
            metric = bar
        return metric

    def _from_table(self, line: str) -> Optional[Metric]:
        for first, second, form in NEEDLES:
            if first in line and second in line:
                head = compiled(form.head).search(line)
                if head:
                    self.form = form.name
                    metric = from_groups({k: v for k, v in head.groupdict().items() if v is not None})
                    if form.scan:
                        for key, value in read_fields(line, form.scan, form.keys).items():
                            metric.setdefault(key, value)
                    if form.name == "nanogpt" and self._tokens_per_iteration and metric.get("step_time"):
                        metric.update(rate=self._tokens_per_iteration / metric["step_time"], rate_unit="tokens/s")
                    return complete(metric)
        return None

    def _read_block(self, line: str) -> Optional[Metric]:
        """The first line of a block, or one of those below; each gives all of the block so far."""
        head = compiled(BLOCK).search(line)
        if head:
            said = {name.rstrip("2"): text for name, text in head.groupdict().items() if text is not None}
            self._block = from_groups(said)
            return dict(self._block)
        value = compiled(BLOCK_VALUE).match(line)
        if value is None or self._block is None:
            self._block = None
            return None
        # The keys are paths, and the trainer's loss is not the only one.
        found = name_fields([(value.group(1), value.group(2), "", "")], {})
        unit = self._block.get("rate_unit")
        if "rate" in found and unit and RATES.index(unit) < RATES.index(found["rate_unit"]):
            found = {key: found[key] for key in found if not key.startswith("rate")}
        self._block["extra"] = dict(self._block.get("extra", {}), **found.pop("extra", {}))
        self._block.update((key, found[key]) for key in found if key not in ("step", "total", "epoch"))
        self.grew = True
        metric = complete(dict(self._block))
        return metric if metric["extra"] else {key: metric[key] for key in metric if key != "extra"}

    def _without_prefixes(self, line: str) -> str:
        for first, prefix in PREFIXES:
            found = compiled(prefix).match(line) if line[:1] in first else None
            if found:
                marks = found.groupdict()
                word = found.group(1).lower() if found.lastindex and not marks else ""
                if word not in ALIASES and word not in NOT_TRAINING:
                    line = line[found.end() :]
                    self.rank = int(marks["rank"]) if "rank" in marks else self.rank
                    self.local_rank = int(marks["local"]) if "local" in marks else self.local_rank
        if "ank" in line or "ANK" in line:
            own = compiled(OWN_RANK).search(line, 0, 200)
            if own:
                self.rank = int(own.group(1) or own.group(2))
        return line


def read_file(path: str, pattern: Optional[str] = None) -> Iterator[Metric]:
    """The metrics in the file at `path`, each with its `line` (counted by LF, from 1). OSError if it cannot be read."""
    reader = MetricReader(pattern)
    line = 1
    held: Optional[Metric] = None
    with open(path, "rb") as log:
        while True:
            piece = log.readline(LINE_LIMIT)
            for metric in reader.feed(piece) if piece else reader.flush():
                if held is not None and not reader.grew:
                    yield held
                held = dict(line=line, **metric)
            if not piece:
                break
            line += piece.endswith(b"\n")
    if held is not None:
        yield held
