"""Metrics where no trainer's own format fits: progress bars, JSON objects, and any line of keys and numbers."""

from typing import List, Optional, Tuple

from engine.node.metric_fields import (
    NUMBER,
    PAIR,
    WORD,
    Metric,
    compiled,
    complete,
    name_fields,
    rate_unit,
    read_fields,
    to_number,
    to_seconds,
)

STEP_OF = (
    r"(?i)\b(?:global[ _])?(?:step|iter(?:ation)?)s?\b[\s:=#\[]{0,4}(\d{1,15})(?: ?/ {0,8}(\d{1,15}))?(?![\w.]\d|\w)"
)
# `Epoch: [0][  10/5005]` of torchvision and mmdet 2, `| epoch 1 | 200/ 2983 batches` of PyTorch's examples.
STEP_IN_EPOCH = (
    r"(?i)\bepoch:? {0,3}\[\d{1,9}\] {0,4}\[ {0,8}(\d{1,15})/ {0,8}(\d{1,15})\]|(\d{1,15})/ {0,8}(\d{1,15}) batches"
)
# Lines about work of which a step and a time say nothing of training.
ASIDE = r"(?i)\b(?:sav(?:e[ds]?|ing)|checkpoint\w*|load(?:ed|ing)|restor\w*|wr(?:ote|iting|itten))\b"
EVALUATION = r"(?i)(?:^|[\s\[(])(?:val|valid\w*|eval\w*|test)(?=[\s:\])(])|\((?:val|test)\)"

BAR = (
    r"\d{1,3}%\|[^|\n]{0,300}\| *(?P<step>\d{1,15})/(?P<total>\d{1,15}) "
    r"\[[\d:a-z ,?]{1,24}<(?P<eta>[\d:a-z ,?]{1,24}), +"
    rf"(?P<rate>{NUMBER}|\?) ?(?P<unit>[A-Za-z]{{1,12}}/s|s/[A-Za-z]{{1,12}})(?:, (?P<postfix>[^\]]{{0,1000}}))?\]"
)
BAR_EPOCH = r"(?i)\bEpoch[: ]{1,9}(\d{1,9})"
# Words in the description of a bar that counts something else than training steps.
OTHER_WORK = (
    r"(?i)\b(?:map|filter|tokeniz\w*|running tokenizer|load\w*|generat\w*|download\w*|fetch\w*|upload\w*|sanity|val"
    r"|validat\w*|eval\w*|test\w*|predict\w*|extract\w*|sav\w*|pack\w*|group\w*|creat\w*|resolv\w*|convert\w*"
    r"|preprocess\w*|process\w*|read\w*|writ\w*|comput\w*|captur\w*|flatten\w*|build\w*|cast\w*|cach\w*|compil\w*"
    r"|copy\w*|merg\w*|shards?|examples|files)\b"
)


def read_bars(line: str) -> Tuple[Optional[Metric], str]:
    """The last training bar in a line, and what is left of the line without its bars."""
    metric: Optional[Metric] = None
    left: List[str] = []
    before = 0
    for found in compiled(BAR).finditer(line):
        description = line[max(before, found.start() - 100) : found.start()]
        if ":" in description:
            # Log text may be glued in front; the description is what ends in the last colon.
            left.append(line[before : found.start()].rstrip(": ").rpartition("  ")[0])
        before = found.end()
        unit = found.group("unit")
        per_second = unit.endswith("/s")
        what = rate_unit(unit.lower() if per_second else f"{unit[2:].lower()}/s")
        if not what or compiled(OTHER_WORK).search(description):
            continue
        metric = {}
        rate = to_number(found.group("rate"))
        if what == "it/s":
            metric.update(step=int(found.group("step")), total=int(found.group("total")))
            eta = to_seconds(found.group("eta"))
            if eta is not None:
                metric["eta"] = eta
        if rate:
            metric.update(rate=rate if per_second else 1 / rate, rate_unit=what)
            if what == "it/s" and not per_second:
                metric["step_time"] = rate
        epoch = compiled(BAR_EPOCH).search(description)
        if epoch:
            metric["epoch"] = float(epoch.group(1))
        for key, value in read_fields(found.group("postfix") or "", PAIR, {}).items():
            if key != "step":
                metric[key] = value
        complete(metric)
    left.append(line[before:])
    return metric, "  ".join(left)


def from_json(line: str) -> Optional[Metric]:
    """A JSON object, one level of objects in it flattened to `outer/inner`."""
    import json

    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError):
        return None
    pairs: List[Tuple[str, str, str, str]] = []
    for key, value in loaded.items() if isinstance(loaded, dict) else ():
        inside = value.items() if isinstance(value, dict) else ((None, value),)
        for name, inner in inside:
            if isinstance(inner, (int, float, str)) and not isinstance(inner, bool):
                path = key if name is None else f"{key}/{name}"
                try:
                    pairs.append((path, str(inner).strip()[:40], "", ""))
                except ValueError:  # an integer too long for Python to print
                    continue
    return _judged(name_fields(pairs, {}), evaluation=False)


def from_scan(line: str) -> Optional[Metric]:
    """Any `key: number` or `key=number` line; where that gives no loss, `key number` words beside it."""
    if ":" not in line and "=" not in line and "oss " not in line:
        return None
    if line.startswith("    ") and (" = " in line or "(" in line):
        return None  # a line of source in a traceback
    metric = read_fields(line, PAIR, {})
    if "loss" not in metric and "oss " in line:
        words = read_fields(line, WORD, {})
        if "loss" in words and len(words) > 1:
            for key, value in words.items():
                metric.setdefault(key, value)
    if not metric:
        return None
    if "loss" not in metric and compiled(ASIDE).search(line):
        return None
    if "total" not in metric:
        counted = compiled(STEP_OF).search(line)
        if counted and metric.setdefault("step", int(counted.group(1))) == int(counted.group(1)) and counted.group(2):
            metric["total"] = int(counted.group(2))
    if "step" not in metric:
        counted = compiled(STEP_IN_EPOCH).search(line)
        if counted:
            first = 1 if counted.group(1) else 3
            metric.update(step=int(counted.group(first)), total=int(counted.group(first + 1)))
    return _judged(metric, evaluation=compiled(EVALUATION).search(line) is not None)


def _judged(metric: Metric, evaluation: bool) -> Optional[Metric]:
    """The metric if it is one: a loss, or a step with a rate or time; of an evaluation only what it measured."""
    if evaluation:
        extra = dict(metric.get("extra", {}))
        if "loss" in metric:
            extra.setdefault("eval_loss", metric["loss"])
        kept: Metric = {key: metric[key] for key in ("step", "total", "epoch") if key in metric}
        return {**kept, "extra": extra} if any("loss" in key for key in extra) else None
    if "loss" in metric or ("step" in metric and ("rate" in metric or "step_time" in metric)):
        return complete(metric)
    extra = metric.get("extra", {})
    if any("loss" in key for key in extra) and ("step" in metric or "epoch" in metric):
        return {key: metric[key] for key in ("step", "total", "epoch", "extra") if key in metric}
    return None
