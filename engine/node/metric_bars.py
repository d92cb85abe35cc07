"""Progress bars in log lines: which of them counts steps of training, and what it says."""

from typing import List, Optional, Tuple

from engine.node.metric_fields import (
    MAGNITUDES,
    NUMBER,
    PAIR,
    Metric,
    complete,
    read_fields,
    take_some_loss,
    to_number,
    to_seconds,
)
from engine.node.metric_keys import compiled, rate_unit

COUNT = r"\d{1,15}(?:\.\d{1,3})?[kMGT]?"
BAR_RATE = (
    rf"(?P<rate>{NUMBER}|\?) ?(?P<size>[kMG](?!B))?(?P<unit>[A-Za-z]{{1,12}}/s|s/[A-Za-z]{{1,12}})"
    r"(?:, (?P<postfix>[^\]]{0,1000}))?\]"
)
BAR = (
    rf"\d{{1,3}}%\|[^|\n]{{0,300}}\| *(?P<step>{COUNT})/(?P<total>{COUNT}) "
    rf"\[[\d:a-z ,?]{{1,24}}<(?P<eta>[\d:a-z ,?]{{1,24}}), +{BAR_RATE}"
)
# A bar over something that does not know its length.
ENDLESS_BAR = rf"(?:^|: )(?P<step>{COUNT}) ?(?:it|ba|batch(?:es)?|steps?) \[[\d:]{{4,12}}, +{BAR_RATE}"
BAR_EPOCH = r"(?i)\bEpoch[: ]{1,9}(\d{1,9})"
# Words in the description of a bar that counts something else than training steps.
OTHER_WORK = (
    r"(?i)\b(?:map|filter|tokeniz\w*|running tokenizer|load\w*|generat\w*|download\w*|fetch\w*|upload\w*|sanity|val"
    r"|validat\w*|eval\w*|test\w*|predict\w*|extract\w*|sav\w*|pack\w*|group\w*|creat\w*|resolv\w*|convert\w*"
    r"|preprocess\w*|process\w*|read\w*|writ\w*|comput\w*|captur\w*|flatten\w*|build\w*|cast\w*|cach\w*|compil\w*"
    r"|copy\w*|merg\w*|shards?|examples|files)\b"
)


def read_bars(line: str, bar: str = BAR) -> Tuple[Optional[Metric], str]:
    """The last training bar in a line, and what is left of the line without its bars."""
    metric: Optional[Metric] = None
    left: List[str] = []
    before = 0
    for found in compiled(bar).finditer(line):
        description = line[max(before, found.start() - 100) : found.start()]
        if ":" in description:
            # Log text may be glued in front; the description is what ends in the last colon.
            left.append(line[before : found.start()].rstrip(": ").rpartition("  ")[0])
        before = found.end()
        unit = found.group("unit")
        per_second = unit.endswith("/s")
        what = rate_unit(unit.lower() if per_second else f"{unit[2:].lower()}/s")
        if not what or unit == "B/s" or compiled(OTHER_WORK).search(description):
            continue
        metric = {}
        rate = to_number(found.group("rate"))
        if what == "it/s":
            metric["step"] = count(found.group("step"))
            if "total" in found.groupdict():
                metric["total"] = count(found.group("total"))
                eta = to_seconds(found.group("eta"))
                if eta is not None:
                    metric["eta"] = eta
        if rate:
            rate = (rate if per_second else 1 / rate) * MAGNITUDES.get(found.group("size") or "", 1.0)
            metric.update(rate=rate, rate_unit=what)
            if what == "it/s":
                metric["step_time"] = 1 / rate
        # `1|250|Loss: 0.89:  31%|`: programs write their loss into the description.
        if "oss" in description:
            said = read_fields(description, PAIR, {})
            metric.update({key: said[key] for key in ("loss", "lr") if key in said})
        epoch = compiled(BAR_EPOCH).search(description)
        if epoch:
            metric["epoch"] = float(epoch.group(1))
        for key, value in read_fields(found.group("postfix") or "", PAIR, {}).items():
            if key not in ("step", "total"):
                metric[key] = value
        if "loss" not in metric:
            take_some_loss(metric)
        complete(metric)
    left.append(line[before:])
    return metric, "  ".join(left)


def count(text: str) -> int:
    """`32`, `32.0k` -> 32, 32000."""
    size = MAGNITUDES.get(text[-1:], 1e12 if text.endswith("T") else 0)
    return int(float(text[:-1]) * size) if size else int(float(text))


class TrainingBar:
    """Tells the bar of the training from those of evaluations that come and go within it, where none has a name.

    A bar with a loss is one of training, and so is the one that goes on. Where the log has losses without a step, the
    bar that is drawn around them is it.
    """

    def __init__(self) -> None:
        self._total: Optional[int] = None
        self._step = 0
        self._drawn = 0
        self._trained = False
        self._newest: Optional[int] = None
        self._doubts = 0

    def counts(self, bar: Metric, with_loss: bool) -> bool:
        """Whether this state of a bar is of the training."""
        total = bar.get("total")
        if total is None:
            return True
        self._newest = total
        self._trained = self._trained or with_loss
        if total != self._total:
            going_on = self._drawn >= 3 and 0 < self._step < (self._total or 0)
            if not with_loss and (self._trained or going_on):
                return False
            self._total, self._drawn = total, 0
        self._step = bar["step"]
        self._drawn += 1
        return True

    def loss_beside(self) -> None:
        """The log tells a loss without a step; said twice around another bar, that one is of training."""
        if self._newest is None:
            return
        self._trained = True
        self._doubts = self._doubts + 1 if self._newest != self._total else 0
        if self._doubts > 1:
            self._total, self._drawn, self._doubts = self._newest, 0, 0
