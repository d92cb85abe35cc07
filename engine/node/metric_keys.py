"""What the keys of log lines are called, and what they mean, in the units of a metric."""

import functools
import re
from typing import Dict, Mapping, Tuple

Aliases = Mapping[str, Tuple[str, int]]


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
    loss <- total loss, train_loss_step, loss_step, train/loss_step, loss train, nll_loss, local_loss
    loss <- train/crossentropyloss, train/ce loss
    step <- step, global_step, global step, _step, steps, iter, iteration, it, num_updates, update_step, time/batch
    step <- global_step/max_steps, current_steps, cur_step, current_step, iter_num, batch_idx
    total <- total_steps, max_steps, total_iters, max_iters, num_steps, num_training_steps
    total <- max_iter, num_iterations, max_iterations, total_iterations, total_step
    epoch <- epoch, ep
    lr <- lr, learning_rate, learning rate, lr-adamw, lr-sgd
    grad_norm <- grad_norm, grad norm, grad. norm, gradient norm, gradnorm, gnorm, global_grad_norm
    grad_norm <- l2_norm/grad/global
    step_time <- time, step_time, step time, iter_time, iter time, batch_time, batch time, time_per_step
    step_time <- time per step, sec/step, s/it, s/step, dt, train_step_timing in s, train_step_timing
    step_time <- step_time_s, seconds per step, seconds/step, seconds_per_step, sec/iter, s/iter, time/step, time/iter
    step_time <- time/it, time per iter, time_per_iter, time per iteration, iteration time, iteration_time, step_avg
    step_time <- avg_step_time, average step time, step duration, step_duration, duration, timing_s/step, step_seconds
    step_time ms <- elapsed time per iteration (ms), elapsed time per iteration, time (ms), step_time_ms
    step_time ms <- step_time (ms), ms/step, ms/it, ms/iter, ms/batch
    data_time <- data_time, data time, data_loading_time, dataloader_time, data_loading(s), data
    data_time <- data_wait, data wait, dataload_time, data_load_time, batch_load_time, dataloading time
    comm_time <- comm_time, comm time, communication time, allreduce_time, all_reduce_time, sync_time, wait_time
    rate tokens/s <- tokens/s, tokens/sec, tok/s, tok/sec, toks/s, tokens_per_second, tokens_per_sec
    rate tokens/s <- train_tokens_per_second, tps, wps, throughput/tokens_per_sec
    rate tokens/s/gpu <- tgs, tokens/s/gpu, tokens/sec/gpu, tok/s/gpu, tokens_per_sec_per_gpu
    rate tokens/s/gpu <- tokens_per_gpu_per_second, throughput/device/tokens_per_sec, perf/throughput
    rate tokens/s/gpu <- throughput/device/tps
    rate samples/s <- samples/s, samples/sec, currsamplespersec, samplespersec, runningavgsamplespersec
    rate samples/s <- samples_per_second, samples_per_sec, train_samples_per_second, throughput/samples_per_sec
    rate samples/s <- imgs/s, img/s, imgs/sec, images/s, images/sec, examples/s
    rate samples/s/gpu <- samples/s/gpu, samples/sec/gpu, throughput/device/samples_per_sec
    rate it/s <- it/s, its/s, iter/s, steps/s, steps/sec, steps_per_second, train_steps_per_second
    rate it/s <- throughput/batches_per_sec, ups
    rate ? <- throughput, speed, train_speed
    memory_gib ? <- maxmemallocated, max_memory, memory, mem, peak_mem, peak mem., peak_memory, max_mem, gpu_mem
    memory_gib ? <- max_memory_allocated, gpu_memory, mem_alloc, max_mem_alloc, peak_mem_gb, peak memory
    memory_gib mib <- max mem
    eta <- eta
    mfu <- mfu, mfu(%), mfu (%)
    tflops <- tflops, tflop/s, throughput per gpu (tflop/s/gpu), tflops/gpu, approx flops per gpu, tflop/s/device
    tflops <- tflops/device, tflops/s/gpu, tflop/s/gpu, tflops_per_gpu
    batch <- global batch size, global_batch_size
    """
)

# Where a line has several rates: the most telling first.
RATES = ("tokens/s/gpu", "tokens/s", "samples/s/gpu", "samples/s", "it/s")
RATE_UNITS = {
    **dict.fromkeys(("tok", "toks", "token"), "tokens"),
    **dict.fromkeys(("sample", "example", "examples", "ex", "img", "imgs", "image", "images"), "samples"),
    **dict.fromkeys(("seq", "seqs", "sequence", "sequences"), "samples"),
    **dict.fromkeys(("its", "iter", "iters", "iteration", "iterations", "step", "steps", "b", "ba"), "it"),
    **dict.fromkeys(("batch", "batches"), "it"),
}
NOT_TRAINING = frozenset(("val", "valid", "validation", "validate", "eval", "evaluation", "test", "dev")) | {
    "best",
    "min",
    "max",
    "lowest",
    "prev",
    "previous",
    "final",
    "target",
}
# Before "time" or "duration": a time that is not a step's.
OTHER_TIMES = frozenset(
    ("total", "elapsed", "wall", "run", "running", "training", "train", "epoch", "forward", "backward", "fwd", "bwd")
) | {"optimizer", "optim", "sync", "load", "save", "start", "end", "cpu", "remaining", "passed", "cumulative", "since"}
MEASURES = r"(?i)loss(?!.?scale)|acc|reward|score|perplexity|ppl|entropy|(?:^|[_/ ])(?:kl|f1|bleu|iou|map)(?:$|[_/ ])"
# Any spelling of a rate as a key: `tokens_per_sec_per_gpu`, `Tokens/s/device`, `samples per second`.
WHAT = r"(?:tokens?|toks?|samples?|seqs?|sequences|examples|imgs?|images|its?|iter(?:ation)?s?|steps?|batch(?:es)?)"
RATE_KEY = (
    rf"(?:.*[ /._(])?({WHAT})"
    r"(?:/|[ _]?per[ _]?)(?:(gpu|device|chip|rank)(?:/|[ _]per[ _]))?(?:s|secs?|seconds?)"
    r"(?:(?:/|[ _]per[ _]|_)(gpu|device|chip|rank))?\)?(?: \(\w+\))?"
)
KEY_IN_UNIT = r"(.+?)[ _]*(?:\(([a-z]{1,7}(?:/s)?)\)|[ _]in[ _](s|ms)|_(ms|gb|gib|mb|mib|sec|secs|seconds))"
LONGEST_KEY = 64  # characters; the patterns of keys are for short text
EXTRA = ("extra", 0)
NOTHING = ("", 0)


@functools.lru_cache(maxsize=4096)
def meaning(key: str) -> Tuple[str, int]:
    """What a key means: whole, else its last words or the last part of its path, unless it names an evaluation."""
    key = key.strip().lower()
    if len(key) > LONGEST_KEY:
        return NOTHING
    if "(" in key and ")" not in key:
        key = key.rpartition("(")[2].strip()
    found = ALIASES.get(key)
    if found:
        return found
    rate = compiled(RATE_KEY).fullmatch(key)
    if rate and not NOT_TRAINING.intersection(compiled(r"[ /_]").split(key)):
        per_gpu = rate.group(2) or rate.group(3) or "/device/" in key or "/gpu/" in key
        unit = rate_unit(f"{rate.group(1)}/s")
        return (f"rate {unit}{'/gpu' if per_gpu and unit != 'it/s' else ''}", 10) if unit else NOTHING
    in_unit = compiled(KEY_IN_UNIT).fullmatch(key)
    if in_unit:
        target, order = meaning(in_unit.group(1))
        field, _, unit = target.partition(" ")
        if unit in ("", "?") and field in ("step_time", "data_time", "comm_time", "memory_gib", "rate"):
            unit = in_unit.group(2) or in_unit.group(3) or in_unit.group(4)
            return f"{field} {rate_unit(unit) or '?' if field == 'rate' else unit}", order
    words = key.split(" ")
    for first in range(1, len(words)):
        before = words[first - 1].strip("(<:")
        if before in NOT_TRAINING:
            return EXTRA
        rest = " ".join(words[first:])
        if rest in ("time", "duration"):
            # `epoch 3 time` is the epoch's.
            before = words[first - 2] if first > 1 and before.isdigit() else before
            if before in OTHER_TIMES:
                return NOTHING
        found = ALIASES.get(rest)
        if found:
            return found[0], found[1] + 50
    if compiled(r"(?:train(?:ing)? )?loss (?:\(.{1,40}\) )?(?:at|after|for) ").match(key):
        return ALIASES["loss"]
    path = key.split("/")
    if len(path) > 1 and not NOT_TRAINING.intersection(path):
        return ALIASES.get(path[-1], EXTRA)
    return EXTRA if compiled(MEASURES).search(key) else NOTHING


def rate_unit(unit: str) -> str:
    """`tok/s` -> `tokens/s`; "" for a unit that is no training rate."""
    what, _, rest = unit.partition("/")
    what = RATE_UNITS.get(what, what)
    where = "/gpu" if any(part in ("gpu", "device", "rank") for part in rest.split("/")) else ""
    return f"{what}/s{where}" if f"{what}/s{where}" in RATES else ""
