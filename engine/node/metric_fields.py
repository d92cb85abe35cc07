"""Pairs of keys and numbers in log lines, as the fields of a metric."""

import functools
from typing import Any, Dict, Iterable, Iterator, Optional, Tuple

from engine.node.metric_keys import ALIASES, MEASURES, NOT_TRAINING, RATES, WHAT, Aliases, compiled, meaning, rate_unit

Metric = Dict[str, Any]

NUMBER = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,24}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?|[-+]?(?i:nan|inf(?:inity)?)"
)
RATE = rf"(?:[kKMGB] ?)?{WHAT}(?:/gpu|/GPU|/device)?/s(?:ec(?:ond)?s?)?(?:/gpu|/GPU|/device|/rank)?"
PER_STEP = r"(?:ms|us|s|secs?|seconds)/(?:it|step|iter|iteration|batch)"
UNIT = rf"{RATE}|{PER_STEP}|ms|us|[GM]i?[Bb]|TFLOPS?|TFLOP/s|%|s(?:ec(?:onds?)?)?|[kKMG](?![\w/])"
# `lr=1e-3 tok/s=900`: what looks like a unit is the next key.
BEHIND = rf"(?: ?({UNIT})(?! ?[:=]| +[-\d.]))?"
# What may stand behind a number and its unit: no letter, digit, clock (12:30), version (1.2.3), date (2024-01-02).
ENDS = r"(?![\w%]|[-:.]\d|/[A-Za-z])"

# Where a key stands: its text is looked up by splitting off what is before it, so that the pattern stays linear.
# A colon between digits is a clock's. Starting with the separator keeps the search as fast as looking for a character.
WRAPPED = r"(?:\[?(?:tensor|array|np\.float\d\d)\(|[\"'\[(]{1,2}[ ]?)?"
PAIR = (
    rf"[:=](?!(?<=\d:)\d)[ \t]{{0,12}}{WRAPPED}({NUMBER}){BEHIND}{ENDS}"
    r"(?:[ ]?/[ ]{0,8}(\d{1,15})\b)?"
)
WORD = rf"(?<![\w./%])([A-Za-z_][\w/%]{{0,39}}\.?)[ \t]{{1,12}}({NUMBER}){BEHIND}{ENDS}()"
KEY_EDGE = r"[|,;:={}\[\]\"'\t]|  | - "
ETA = r"(?i)\b(?:eta|remaining[ _]time)[\"']?[:=] {0,2}[\"']?((?:\d+ days?, )?\d+:\d\d(?::\d\d)?)"
# A rate behind its number, with no key: `12.5k tok/s`, `0.5 sec/step`, `50.9% bf16 MFU`.
LOOSE = rf"(?<![\w.])({NUMBER}) ?(?:({RATE}|{PER_STEP})|(%) (?:\w{{1,8}} )?MFU)(?![\w/])"
SOME_LOSS = r"(?i)(?:[\w.-]+[_/ .])?(?:[a-z]{0,16}loss|loss_(?!weight|scale|coef|fn|type|factor)[a-z]{1,8})"
LOOSE_TIME = rf"(?:[|(,]| - |\btook|\bin) {{0,4}}({NUMBER}) ?(ms|s|secs?|seconds)(?= {{0,4}}(?:[|),]| - |$))"
EXTRAS = 16  # entries of `extra`
SCALES = {"ms": 1e-3, "us": 1e-6, "mb": 1 / 1024, "mib": 1 / 1024, "m": 1 / 1024}
MAGNITUDES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
TIME_UNITS = frozenset(("", "s", "ms", "us", "sec", "secs", "second", "seconds"))
EXACT = 2**53  # a step beyond this is no step
PLAIN = frozenset(
    ("epoch", "loss", "lr", "grad_norm", "step_time", "data_time", "comm_time", "rate", "memory_gib", "eta", "tflops")
)


def to_number(text: str) -> Optional[float]:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def to_seconds(text: str) -> Optional[float]:
    """`1:02:03`, `02:03`, `1 day, 2:03:04`, a number of seconds; None for `?`."""
    days, _, clock = text.rpartition(" day")
    total = 0.0
    try:
        for part in clock.lstrip("s").lstrip(", ").split(":"):
            total = total * 60 + float(part)
        return total + 86400 * int(days or 0)
    except (ValueError, OverflowError):
        return None


def read_pairs(line: str, scan: str) -> Iterator[Tuple[str, str, str, str]]:
    """(key, number, unit, total) of a line, from left to right."""
    if scan is WORD:
        for found in compiled(WORD).finditer(line):
            yield found.group(1), found.group(2), found.group(3) or "", ""
        return
    before = 0
    for found in compiled(scan).finditer(line):
        start, end = found.span()
        number, unit, total = found.groups("")
        yield key_at_end(line[before if before > start - 48 else start - 48 : start]), number, unit, total
        before = end


@functools.lru_cache(maxsize=4096)
def key_at_end(text: str) -> str:
    """The key that ends here, of what is between two numbers: the same on every line of a trainer."""
    return compiled(KEY_EDGE).split(text.rstrip(" \t\"'"))[-1]


def read_fields(line: str, scan: str, keys: Aliases) -> Metric:
    metric = name_fields(read_pairs(line, scan), keys)
    if "eta" in line or "ETA" in line or "emaining" in line:
        eta = compiled(ETA).search(line)
        if eta:
            metric["eta"] = to_seconds(eta.group(1))
    return metric


def name_fields(pairs: Iterable[Tuple[str, str, str, str]], keys: Aliases) -> Metric:
    """The fields that `pairs` name. Of two names for one field the earlier in ALIASES wins, of equals the first."""
    metric: Metric = {}
    orders: Dict[str, int] = {}
    extra: Dict[str, Any] = {}
    loss_key = ""
    per_step = 0.0
    for key, text, unit, total in pairs:
        target, order = keys.get(key.strip()) or meaning(key) if keys else meaning(key)
        value = to_number(text) if target else None
        if value is None:
            continue
        if target == "extra":
            name = key.strip()
            if not total and len(extra) < EXTRAS and compiled(MEASURES).search(name):
                extra.setdefault(short(name), value)
            continue
        field, _, wanted = target.partition(" ")
        if field == "rate" and compiled(PER_STEP).fullmatch(unit):
            field, wanted = "step_time", ""
        if field == "rate":
            unit, scale = magnitude(unit)
            value *= scale
            wanted = rate_unit(unit) if wanted == "?" or "/gpu" in rate_unit(unit) else wanted
            if not wanted:
                continue
            order += 100 * RATES.index(wanted)
            if wanted == "it/s" and value > 0:
                per_step = 1 / value
        unit = unit.lower()
        if field == "memory_gib":
            unit = wanted if wanted != "?" else unit or ("gib" if key.strip().lower().endswith("memallocated") else "")
            if unit not in ("gb", "gib", "mb", "mib", "g", "m"):
                continue
            value *= SCALES.get(unit, 1.0)
        elif field in ("step_time", "data_time", "comm_time"):
            unit = unit.partition("/")[0] if compiled(PER_STEP).fullmatch(unit) else unit
            if unit not in TIME_UNITS or total:
                continue
            value *= SCALES.get(wanted or unit, 1.0)
        elif field == "mfu":
            if value < 0:  # nanoGPT before it has measured
                continue
            # Without a percent sign a value up to 1 is a share.
            value *= 100 if not unit and "%" not in key and value <= 1 else 1
        elif field in ("step", "total", "batch"):
            if unit or not (0 <= value < EXACT and value == int(value)):
                continue
            value = int(value)
        elif field == "eta" or (field == "loss" and unit):
            continue
        beaten = order >= orders.get(field, 1 << 30)
        if field == "loss":
            # The other losses of the line are kept under their own names.
            other = (key, value) if beaten else (loss_key, metric.get("loss"))
            loss_key = loss_key if beaten else key
            if other[0] and len(extra) < EXTRAS:
                extra.setdefault(short(other[0]), other[1])
        if beaten:
            continue
        orders[field] = order
        metric[field] = value
        if field == "rate":
            metric["rate_unit"] = wanted
        elif field == "step" and total:
            metric["total"] = int(total)
    if per_step:
        metric.setdefault("step_time", per_step)
    if extra:
        metric["extra"] = extra
    return metric


def read_loose(line: str) -> Iterator[Tuple[str, str, str, str]]:
    """What stands in a line as a number and a unit without a key, as `read_pairs` gives it."""
    for found in compiled(LOOSE).finditer(line):
        number, unit, share = found.groups()
        if share:
            yield "mfu", number, "%", ""
        elif compiled(PER_STEP).fullmatch(unit):
            yield "step_time", number, unit, ""
        else:
            yield "speed", number, unit, ""


def magnitude(unit: str) -> Tuple[str, float]:
    """`k tok/s` -> `tok/s`, 1000; a unit without a letter for its size as it is."""
    rest = unit[1:].lstrip()
    if unit[:1] in MAGNITUDES and (not rest or "/s" in rest):
        return rest.lower(), MAGNITUDES[unit[0]]
    return unit.lower(), 1.0


def short(key: str) -> str:
    """A key as a name in `extra`."""
    return "_".join(key.split())[-40:]


def from_groups(groups: Dict[str, Optional[str]]) -> Metric:
    """Fields from the named groups of a pattern; a group that is no field and no alias goes to `extra`."""
    metric: Metric = {}
    extra: Dict[str, float] = {}
    for name, text in groups.items():
        if text is None:
            continue
        if name == "per_step":
            number = text.rstrip("mus")
            metric.update(name_fields([("step_time", number, text[len(number) :], "")], {}))
            continue
        field = {"step2": "step", "ms": "step_time", "its": "rate", "samples": "rate"}.get(name, name)
        if field == "rate_unit":
            metric["rate_unit"] = rate_unit(text.lower()) or text[:24]
            continue
        value = to_seconds(text.strip()) if field == "eta" else to_number(text.strip())
        if value is None:
            continue
        if field in ("step", "total"):
            if 0 <= value < EXACT:
                metric[field] = int(value)
        elif name == "ms":
            metric[field] = value / 1000
        elif field == "rate" and name != "rate":
            metric.update(rate=value, rate_unit="it/s" if name == "its" else "samples/s")
        elif field == "mfu":
            if value >= 0:
                metric[field] = value
        elif field in PLAIN:
            metric[field] = value
        elif field.lower() in ALIASES:
            for key, found in name_fields([(field, text, "", "")], {}).items():
                metric.setdefault(key, found)
        else:
            extra[field] = value
    if extra:
        metric["extra"] = extra
    if "rate" in metric:
        metric.setdefault("rate_unit", "it/s")
    return metric


def complete(metric: Metric) -> Metric:
    """What follows from the rest: a rate from a global batch and the step time, a rate in it/s, or the step time."""
    batch = metric.pop("batch", None)
    step_time = metric.get("step_time")
    if "rate" not in metric and step_time:
        if batch:
            metric.update(rate=batch / step_time, rate_unit="samples/s")
        elif step_time > 0:
            metric.update(rate=1 / step_time, rate_unit="it/s")
    elif step_time is None and metric.get("rate_unit") == "it/s" and metric["rate"] > 0:
        metric["step_time"] = 1 / metric["rate"]
    return metric


def take_some_loss(metric: Metric) -> None:
    """Where nothing is called the loss, the first that is one of training: `pg_loss`, `train/mse_loss`."""
    for key, value in metric.get("extra", {}).items():
        if compiled(SOME_LOSS).fullmatch(key) and not of_evaluation(key):
            metric["loss"] = value
            return


def of_evaluation(key: str) -> bool:
    return not NOT_TRAINING.isdisjoint(compiled(r"[^a-z]+").split(key.lower()))
