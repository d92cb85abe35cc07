"""What console output came through puts before its lines: which marks a file has, and a line without them.

Outermost first: what whole files are wrapped in (a container runtime's, `ts`'s or journald's time, a pod's or host's
name in brackets, an indentation), a label (`srun --label`'s `3: `, pdsh's `gpu02: `, docker's `gpu02 | `), mpirun's,
torchrun's tee (`[default0]:`, the local rank) and torch's own (`[rank3]:`, the global rank). What could be ordinary
words counts only where nearly every line of the file has it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
RUNTIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:\d\d) (?:std(?:out|err) [FP] )?")
LABEL = re.compile(r" {0,5}(\d{1,6}): |([A-Za-z][\w.-]{0,62})(?:: | +\| )")
MPIRUN = re.compile(r"\[\d+,(\d+)\]<std(?:out|err)>: ?")
TEE = re.compile(r"\[(?!rank\d)[A-Za-z_][A-Za-z_-]{0,30}(\d{1,5})(?:\|(\d{1,6}))?\]: ?")
TORCH = re.compile(r"\[rank(\d{1,6})\]: ?")

GLUED = re.compile(r"\[rank(\d{1,6})\]: (?=Traceback)")
"""Behind a prompt or a progress bar without a final newline."""

DAY = r"(?:\d{4}[-/]\d\d[-/]\d\d|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d|[A-Z][a-z]{2} [ \d]\d)"
CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?[AP]M)?(?:Z| ?[+-]\d\d:?\d\d| UTC)?"
OTHERS = r"(?!torch\.distributed\.[\w.]+: \[[A-Z]| ?- |\[[A-Z]{4,8}\])"
"""A logger's time is wanted: what it says goes on so."""
WRAPPINGS = (
    re.compile(rf"(?:{DAY}[ T_])?{CLOCK}(?: \d{{4}})?(?:: | +\| | ){OTHERS}"),
    re.compile(rf"\[(?:{DAY}[ T_])?{CLOCK}\]:? {OTHERS}"),
    re.compile(r"[A-Za-z][\w.-]{0,62} [\w./@-]{1,60}\[\d{1,8}\]: "),  # journald: gpu02 torchrun[4711]:
    re.compile(r"\((?:[\w.-]{1,60}, )?(?:pid|ip)=[\w., =-]{1,60}\) "),  # ray
    re.compile(r"\[(?!rank\d)(?!default\d)(?:pod/)?[A-Za-z0-9][\w.:/-]{0,120}\]:? (?!\[?[A-Za-z]+\]?:? *-)"),
)
"""What whole files are wrapped in, as far as it says nothing about ranks; an indentation is counted out."""
HOST = re.compile(r"[A-Za-z][\w.-]*\d[\w.-]*")
"""A name that all lines begin with, where it has a number: `2025-03-27 17:31:09 sm228-a100 …`."""
SPEAKERS = frozenset(
    [
        "srun",
        "sbatch",
        "salloc",
        "slurmstepd",
        "bash",
        "sh",
        "ssh",
        "torchrun",
        "usage",
        "error",
        "fatal",
        "ERROR",
        "FATAL",
        "WARNING",
        "INFO",
        "DEBUG",
    ]
)
"""Words before a colon that say who speaks, and not on which node."""
MOSTLY = 0.8
"""Share of the lines that have to carry a label for it to be one."""
NEARLY_ALL = 0.95
"""The same for a wrapping: lines of Slurm's and the shell's own may be without."""
SAMPLE = 1000
"""Lines at both ends of a file that are asked for wrappings."""
DEPTH = 3


class Marks(msgspec.Struct, frozen=True):
    """The marks of one file: wrappings outside and inside of its labels, outermost first.

    `words` are the labels, with # for a number: all hosts or tasks of one name.
    """

    outer: tuple[re.Pattern[str], ...] = ()
    words: frozenset[str] = frozenset()
    inner: tuple[re.Pattern[str], ...] = ()

    def off(self, text: str) -> tuple[str, str]:
        """(text without these marks, its label)."""
        label = ""
        if text[:2] == "20" and (found := RUNTIME.match(text)):
            text = text[found.end() :]
        if self.outer:
            text = stripped(text, self.outer)
        if self.words and (found := LABEL.match(text)) and shape(found[1] or found[2]) in self.words:
            label = found[1] or found[2]
            text = text[found.end() :]
        return stripped(text, self.inner) if self.inner else text, label


NONE = Marks()


def stripped(text: str, wrappings: Sequence[re.Pattern[str]]) -> str:
    """A line without its wrappings."""
    for pattern in wrappings:
        if found := pattern.match(text):
            text = text[found.end() :]
    return text


def marks(texts: Sequence[str]) -> Marks:
    """The marks that the lines of one file carry."""
    plain = [ANSI.sub("", text) if "\x1b" in text else text for text in texts if text.strip()]
    plain = [text[found.end() :] if text[:2] == "20" and (found := RUNTIME.match(text)) else text for text in plain]
    outer = wrappings(plain)
    words = labels([stripped(text, outer) for text in plain] if outer else plain)
    inner = wrappings([Marks(outer, words).off(text)[0] for text in ends(plain)]) if words else ()
    return Marks(outer, words, inner)


def ends(texts: Sequence[str]) -> list[str]:
    """Beginning and end of a file: enough to see how its lines begin."""
    return list(texts) if len(texts) <= 2 * SAMPLE else [*texts[:SAMPLE], *texts[-SAMPLE:]]


def wrappings(texts: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """What nearly every line begins with, in the order in which it is taken off."""
    left = ends(texts)
    found: list[re.Pattern[str]] = []
    while len(found) < DEPTH and left:
        enough = max(2.0, NEARLY_ALL * len(left))
        fits = next((one for one in WRAPPINGS if sum(map(bool, map(one.match, left))) >= enough), None)
        if fits is None:
            indent = min(len(text) - len(text.lstrip(" ")) for text in left)
            word, times = Counter(text.partition(" ")[0] for text in left).most_common(1)[0]
            if indent:
                fits = re.compile(f" {{{indent}}}")
            elif times >= enough and HOST.fullmatch(word):
                fits = re.compile(re.escape(word) + " ")
            else:
                break
        found.append(fits)
        left = [stripped(text, (fits,)) for text in left]
        left = [text for text in left if text.strip()]
    return tuple(found)


def labels(texts: Sequence[str]) -> frozenset[str]:
    """The words that srun or pdsh put before the lines of this file, # for a number; empty where lines have none."""
    found: Counter[str] = Counter()
    count = 0
    for text in texts:
        match = LABEL.match(text)
        if match and match.group(2) in SPEAKERS:
            continue
        count += 1
        if match:
            found[match.group(1) or match.group(2)] += 1
    common = {word for word, times in found.items() if times >= 2 and times >= 0.01 * count}
    if count < 2 or sum(found[word] for word in common) < MOSTLY * count:
        return frozenset()
    return frozenset(map(shape, common))


def shape(word: str) -> str:
    """gpu02 -> gpu#"""
    return DIGITS.sub("#", word)


DIGITS = re.compile(r"\d+")


def unmarked(text: str, known: Marks) -> tuple[str, str, int | None, int | None]:
    """(text without its marks, label, local rank, global rank)."""
    local_rank, rank = None, None
    text, label = known.off(text)
    if text.startswith("["):
        if found := MPIRUN.match(text):
            rank, text = int(found.group(1)), text[found.end() :]
        if found := TEE.match(text):
            local_rank, text = int(found.group(1)), text[found.end() :]
            rank = int(found.group(2)) if found.group(2) else rank
        if found := TORCH.match(text):
            rank, text = int(found.group(1)), text[found.end() :]
    if rank is None and "]: Traceback" in text and (found := GLUED.search(text)):
        rank, text = int(found.group(1)), text[found.end() :]
    return text, label, local_rank, rank
