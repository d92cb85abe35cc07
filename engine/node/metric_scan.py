"""Metrics where no trainer's own format fits: JSON objects, and any line of keys and numbers."""

from typing import List, Optional, Tuple

from engine.node.metric_fields import (
    LOOSE_TIME,
    PAIR,
    WORD,
    Metric,
    complete,
    name_fields,
    of_evaluation,
    read_fields,
    read_loose,
    read_pairs,
    take_some_loss,
)
from engine.node.metric_keys import compiled

STEP_OF = (
    r"(?i)\b(?:(?:global[ _])?(?:step|iter(?:ation)?)s?|update)\b[\s:=#\[]{0,4}(\d{1,15})(?: ?/ {0,8}(\d{1,15}))?"
    r"(?![\w.]\d|\w)"
)
# Where a line has no word for its step: `Epoch: [0][  10/5005]` of torchvision, `| epoch 1 | 200/ 2983 batches` of
# PyTorch's examples, `Epoch 3/10, Batch 50/100`, `[10/100] loss`, `10/100: loss`. The last one counts, and no epochs.
STEP_ELSE = (
    r"(?i)(?:^|(?<!epoch)(?<!epoch )(?<!epoch: )(?<!epoch:)\[ {0,8}|\bbatch(?: |: ?|=)\[?|\btrain(?:ing)?:? {1,3}"
    r"|\| {1,8})(\d{1,15}) ?/ {0,8}(\d{1,15})(?=\]|:(?!\d)| batches|,| {1,4}(?:\||-|loss))"
)
BATCH = r"(?i)\bbatch(?: |: ?|=)(\d{1,15})\b"
EPOCH_OF = r"(?i)\bepoch[\s:=#\[]{0,4}(\d{1,9})\b"
# Lines about work of which a step and a time, and even a loss, say nothing of training; and about the whole run.
ASIDE = (
    r"(?i)\b(?:sav(?:e[ds]?|ing)|checkpoint\w*|load(?:ed|ing)|restor\w*|resum\w*|wr(?:ote|iting|itten)"
    r"|finished training|(?:train(?:ing|ed)?|run|fit) (?:is )?(?:done|completed?|finished|ended|over|summary))\b"
)
EVALUATION = r"(?i)(?:^|[\s\[(])(?:val|valid\w*|eval\w*|test)(?=[\s:\])(])(?!: n/a)|\((?:val|test)\)"
TRAINING_LOSS = r"(?i)\btrain(?:ing)?[\]) _/:-]{1,3}(?:(?:step|iter) \d{1,15} )?loss"


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
    if "loss" in metric:
        if compiled(SURE_WORD).search(line):
            pairs = (pair for pair in read_pairs(line, WORD) if pair[0].lower() in SURE_WORDS)
            for key, value in name_fields(pairs, {}).items():
                metric.setdefault(key, value)
    elif "oss " in line:
        words = read_fields(line, WORD, {})
        if "loss" in words and (len(words) > 1 or compiled(STEP_ELSE).search(line)):
            for key, value in words.items():
                metric.setdefault(key, value)
    if not metric:
        return None
    _count(metric, line)
    if "/s" in line or "s/" in line or "sec/" in line or "MFU" in line:
        for key, value in name_fields(read_loose(line), {}).items():
            metric.setdefault(key, value)
    if "step_time" not in metric and "step" in metric and "loss" in metric:
        alone = compiled(LOOSE_TIME).search(line)
        if alone:
            metric["step_time"] = float(alone.group(1).replace(",", "")) / (1000 if alone.group(2) == "ms" else 1)
    evaluation = compiled(EVALUATION).search(line) is not None and not compiled(TRAINING_LOSS).search(line)
    judged = _judged(metric, evaluation)
    # What stands before the loss says whether it is told of something else.
    if judged and compiled(ASIDE).search(line, 0, line.find("oss") if "loss" in judged else len(line)):
        return None
    return judged


SURE_WORD = r"\b(?:lr|norm|gnorm|grad_norm|mfu|mem|tgs|tps|wps|step_time) "
SURE_WORDS = frozenset(
    ("lr", "loss", "grad_norm", "gnorm", "norm", "mfu", "tgs", "tps", "wps", "tok/s", "mem", "step_time")
)


def _count(metric: Metric, line: str) -> None:
    """The step, the total and the epoch, where they stand in a line as words or in brackets."""
    if "total" not in metric or "step" not in metric:
        counted = compiled(STEP_OF).search(line)
        if counted and metric.setdefault("step", int(counted.group(1))) == int(counted.group(1)) and counted.group(2):
            metric["total"] = int(counted.group(2))
    if "step" not in metric and "loss" in metric:
        # Behind the loss stand samples: `loss: 2.3 [ 6400/60000]`.
        for counted in compiled(STEP_ELSE).finditer(line, 0, line.lower().find("loss") + len("loss")):
            metric.update(step=int(counted.group(1)), total=int(counted.group(2)))
    epoch = compiled(EPOCH_OF).search(line)
    if epoch:
        metric.setdefault("epoch", float(epoch.group(1)))
    if "step" not in metric and "epoch" in metric and "atch" in line:
        batch = compiled(BATCH).search(line)
        if batch:
            metric["step"] = int(batch.group(1))
    if "step" not in metric and epoch:
        metric.pop("step_time", None)  # `Epoch 1, loss: 2.5, time: 12.3s` is the epoch's


def _judged(metric: Metric, evaluation: bool) -> Optional[Metric]:
    """The metric if it is one: a loss, or a step with a rate or time; of an evaluation only what it measured."""
    if not evaluation and "loss" not in metric and "extra" in metric and ("step" in metric or "epoch" in metric):
        take_some_loss(metric)
        evaluation = "loss" not in metric and any("loss" in key and of_evaluation(key) for key in metric["extra"])
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
