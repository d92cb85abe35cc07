"""What the keys of log lines are called, what they mean, and the numbers behind them, in the units of a metric."""

import functools
import re
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Tuple

Metric = Dict[str, Any]
Aliases = Mapping[str, Tuple[str, int]]

EXTRAS = 16  # entries of `extra`

NUMBER = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,24}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?|[-+]?(?i:nan|inf(?:inity)?)"
)
UNIT = (
    r"(?:tokens|toks?|samples|examples|imgs?|images|its?|iters?|steps|batch(?:es)?)/s(?:ec(?:ond)?)?(?:/gpu|/device)?"
    r"|s/(?:it|step|iter|batch)|ms|us|[GM]i?B|TFLOPS?|TFLOP/s|%|s(?:ec(?:onds?)?)?"
)
# `lr=1e-3 tok/s=900`: what looks like a unit is the next key.
BEHIND = rf"(?: ?({UNIT})(?! ?[:=]| +[-\d.]))?"
# What may stand behind a number and its unit: no letter, digit, clock (12:30), version (1.2.3), date (2024-01-02).
ENDS = r"(?![\w%]|[-:.]\d|/[A-Za-z])"

# Where a key stands: its text is looked up by splitting off what is before it, so that the pattern stays linear.
# A colon between digits is a clock's. Starting with the separator keeps the search as fast as looking for a character.
PAIR = (
    rf"[:=](?!(?<=\d:)\d)[ \t]{{0,12}}(?:tensor\(|[\"'\[(]{{1,2}}[ ]?)?({NUMBER}){BEHIND}{ENDS}"
    r"(?:[ ]?/[ ]{0,8}(\d{1,15})\b)?"
)
WORD = rf"(?<![\w./%])([A-Za-z_][\w/%]{{0,39}}\.?)[ \t]{{1,12}}({NUMBER}){BEHIND}{ENDS}()"
KEY_EDGE = r"[|,;:={}\[\]\"'\t]|  | - "
ETA = r"(?i)\beta: {0,2}((?:\d+ days?, )?\d+:\d\d(?::\d\d)?)"


@functools.lru_cache(maxsize=None)
def compiled(pattern: str, flags: int = 0) -> "re.Pattern[str]":
    """Compiled when first needed: a node's agent starts in milliseconds, and a log has one format."""
    return re.compile(pattern, flags)


def alias_table(text: str) -> Aliases:
    """`target <- name, name, …` a line -> name: (target, order); of several names in a line of a log the first wins."""
    table: Dict[str, Tuple[str, int]] = {}
    counts: Dict[str, int] = {}
    for line in text.strip().splitlines():
        target, _, names = line.strip().partition(" <- ")
        for name in names.split(", "):
            table[name] = (target, counts.setdefault(target, 0))
            counts[target] += 1
    return table


# A target is a field, or a field with a unit: `step_time ms`, `rate tokens/s`.
ALIASES = alias_table(
    """
    loss <- reduced_llm_loss, reduced_train_loss, lm loss, lm_loss, loss, loss/train/total, train_loss
    loss <- train loss, training loss, training_loss, average loss, avg loss, avg_loss, mean loss, total_loss
    loss <- total loss, train_loss_step, loss_step, train/loss_step, nll_loss, local_loss
    step <- step, global_step, global step, _step, steps, iter, iteration, it, num_updates, update_step, time/batch
    epoch <- epoch, ep
    lr <- lr, learning_rate, learning rate, lr-adamw, lr-sgd
    grad_norm <- grad_norm, grad norm, grad. norm, gradient norm, gradnorm, gnorm, global_grad_norm
    grad_norm <- l2_norm/grad/global
    step_time <- time, step_time, step time, iter_time, iter time, batch_time, batch time, time_per_step
    step_time <- time per step, sec/step, s/it, s/step, dt, train_step_timing in s, train_step_timing
    step_time <- step_time_s
    step_time ms <- elapsed time per iteration (ms), elapsed time per iteration, time (ms), step_time_ms
    step_time ms <- step_time (ms), ms/step, ms/it, ms/batch
    data_time <- data_time, data time, data_loading_time, dataloader_time, data_loading(s), data
    rate tokens/s <- tokens/s, tokens/sec, tok/s, tok/sec, toks/s, tokens_per_second, tokens_per_sec
    rate tokens/s <- train_tokens_per_second, tps, wps, throughput/tokens_per_sec
    rate tokens/s/gpu <- tgs, tokens/s/gpu, tokens/sec/gpu, tok/s/gpu, tokens_per_sec_per_gpu
    rate tokens/s/gpu <- tokens_per_gpu_per_second, throughput/device/tokens_per_sec
    rate samples/s <- samples/s, samples/sec, currsamplespersec, samplespersec, runningavgsamplespersec
    rate samples/s <- samples_per_second, samples_per_sec, train_samples_per_second, throughput/samples_per_sec
    rate samples/s <- imgs/s, img/s, imgs/sec, images/s, images/sec, examples/s
    rate samples/s/gpu <- samples/s/gpu, samples/sec/gpu, throughput/device/samples_per_sec
    rate it/s <- it/s, its/s, iter/s, steps/s, steps/sec, steps_per_second, train_steps_per_second
    rate it/s <- throughput/batches_per_sec
    rate ? <- throughput, speed
    memory_gib ? <- maxmemallocated, max_memory, memory, mem, peak_mem, peak mem., peak_memory, max_mem, gpu_mem
    memory_gib ? <- max_memory_allocated
    eta <- eta
    mfu <- mfu, mfu(%), mfu (%)
    tflops <- tflops, tflop/s, throughput per gpu (tflop/s/gpu), tflops/gpu, approx flops per gpu
    batch <- global batch size, global_batch_size
    """
)

SCALES = {"ms": 1e-3, "us": 1e-6, "mb": 1 / 1024, "mib": 1 / 1024}
# Where a line has several rates: the most telling first.
RATES = ("tokens/s/gpu", "tokens/s", "samples/s/gpu", "samples/s", "it/s")
RATE_UNITS = {
    **dict.fromkeys(("tok", "toks", "token"), "tokens"),
    **dict.fromkeys(("sample", "example", "examples", "ex", "img", "imgs", "image", "images"), "samples"),
    **dict.fromkeys(("its", "iter", "iters", "step", "steps", "b", "ba", "batch", "batches"), "it"),
}
EXACT = 2**53  # a step beyond this is no step
NOT_TRAINING = frozenset(("val", "valid", "validation", "validate", "eval", "evaluation", "test", "dev")) | {
    "best",
    "min",
    "max",
    "lowest",
    "prev",
    "previous",
}
MEASURES = r"(?i)loss(?!.?scale)|acc|reward|score|perplexity|ppl|entropy|(?:^|[_/ ])(?:kl|f1|bleu|iou|map)(?:$|[_/ ])"
PLAIN = frozenset(("epoch", "loss", "lr", "grad_norm", "step_time", "data_time", "rate", "memory_gib", "eta", "tflops"))

EXTRA = ("extra", 0)
NOTHING = ("", 0)


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
    edge = compiled(KEY_EDGE)
    for found in compiled(scan).finditer(line):
        start = found.start()
        key = edge.split(line[max(before, start - 48) : start].rstrip(" \t\"'"))[-1]
        yield key, found.group(1), found.group(2) or "", found.group(3) or ""
        before = found.end()


@functools.lru_cache(maxsize=4096)
def meaning(key: str) -> Tuple[str, int]:
    """What a key means: whole, else its last words or the last part of its path, unless it names an evaluation."""
    key = key.strip().lower()
    found = ALIASES.get(key)
    if found:
        return found
    words = key.split(" ")
    for first in range(1, len(words)):
        if words[first - 1].strip("(<") in NOT_TRAINING:
            return EXTRA
        found = ALIASES.get(" ".join(words[first:]))
        if found:
            return found
    path = key.split("/")
    if len(path) > 1 and not NOT_TRAINING.intersection(path):
        return ALIASES.get(path[-1], EXTRA)
    return EXTRA if compiled(MEASURES).search(key) else NOTHING


def read_fields(line: str, scan: str, keys: Aliases) -> Metric:
    metric = name_fields(read_pairs(line, scan), keys)
    if "eta:" in line:
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
        unit = unit.lower()
        if field == "rate":
            wanted = rate_unit(unit) if wanted == "?" else wanted
            if not wanted:
                continue
            order += 100 * RATES.index(wanted)
        elif field == "memory_gib":
            unit = wanted if wanted != "?" else unit or ("gib" if key.strip().lower().endswith("memallocated") else "")
            if unit not in ("gb", "gib", "mb", "mib"):
                continue
            value *= SCALES.get(unit, 1.0)
        elif field in ("step_time", "data_time"):
            if unit in ("it/s", "%", "gb", "mb") or total:
                continue
            value *= SCALES.get(wanted or unit, 1.0)
        elif field == "mfu":
            if value < 0:  # nanoGPT before it has measured
                continue
            # Without a percent sign a value up to 1 is a share.
            value *= 100 if not unit and "%" not in key and value <= 1 else 1
        elif field in ("step", "batch"):
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
    if extra:
        metric["extra"] = extra
    return metric


def short(key: str) -> str:
    """A key as a name in `extra`."""
    return "_".join(key.split())[-40:]


def rate_unit(unit: str) -> str:
    """`tok/s` -> `tokens/s`; "" for a unit that is no training rate."""
    what, _, rest = unit.partition("/")
    what = RATE_UNITS.get(what, what)
    where = "/gpu" if rest.endswith(("/gpu", "/device")) else ""
    return f"{what}/s{where}" if f"{what}/s{where}" in RATES else ""


def from_groups(groups: Dict[str, Optional[str]]) -> Metric:
    """Fields from the named groups of a pattern; a group that is no field and no alias goes to `extra`."""
    metric: Metric = {}
    extra: Dict[str, float] = {}
    for name, text in groups.items():
        if text is None:
            continue
        field = {"step2": "step", "ms": "step_time", "its": "rate"}.get(name, name)
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
        elif name == "its":
            metric.update(rate=value, rate_unit="it/s")
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
