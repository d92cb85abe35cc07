"""What a training run is asked to do: one flat, strict table of keys, each with a default."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.train import plain_yaml
from engine.train.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Config:
    """Every key of a CONFIG file and of `--set KEY=VALUE`. Sizes are in tokens and samples, times in seconds."""

    # the work
    steps: int = 200  # optimizer steps
    per_device_batch: int = 8  # samples a rank and micro-step
    grad_accum: int = 1  # micro-steps an optimizer step
    seed: int = 1234

    # learning rate and optimizer
    base_lr: float = 3.0e-3  # learning rate at base_batch
    base_batch: int = 32  # total batch that base_lr belongs to
    lr_scaling: str = "sqrt"  # linear (SGD) | sqrt (Adam) | none
    warmup_steps: int = 10
    min_lr_ratio: float = 0.1  # the cosine ends at this share of the scaled learning rate
    optimizer: str = "adamw"  # adamw | sgd | mypkg.module:build, called with the model and the learning rate
    weight_decay: float = 0.1
    momentum: float = 0.9  # of sgd
    grad_clip: float = 1.0  # 0 leaves the gradients as they are; the norm is reported either way

    # model
    model: str = "gpt"  # gpt | mypkg.module:build, called with model_args; its forward takes a batch and gives the loss
    model_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    layers: int = 2  # these four describe gpt
    heads: int = 4
    width: int = 128
    context: int = 64  # tokens a sample
    precision: str = "fp32"  # fp32 | bf16 | fp16, by autocast
    compile: str = ""  # a backend of torch.compile: inductor, aot_eager; empty: none

    # data
    data: str = ""  # a file, a folder, synthetic, mypkg.module:build; empty: this Python's own standard library
    data_args: dict[str, Any] = dataclasses.field(default_factory=dict)  # for mypkg.module:build
    data_glob: str = "*.py"  # which files of a folder
    data_field: str = "text"  # of .jsonl and .parquet
    data_bytes: int = 3_000_000  # read no more text than this; token files are mapped whole
    vocabulary: int = 256  # number of different tokens: 256 for text, which is read as bytes
    token_bytes: int = 2  # of a token file (.bin): 1, 2 or 4
    workers: int = 0  # processes that load data beside each rank

    # distribution
    device: str = "auto"  # auto | cpu | cuda
    timeout_s: float = 120.0  # how long a collective waits for a rank that does not come
    bucket_mb: float = 25.0  # gradients that are all-reduced together
    static_graph: bool = False  # the same parameters are used in every step
    find_unused_parameters: bool = False  # some steps leave parameters unused
    hook: str = "none"  # gradient compression: none | fp16 | bf16 | int8 | powersgd
    powersgd_rank: int = 4
    powersgd_start: int = 20  # steps that are not compressed

    # output
    out: str = ""  # folder of checkpoints and metrics; empty: none are written
    checkpoint_every: int = 0  # steps; 0: not by steps
    checkpoint_minutes: float = 0.0  # 0: not by time
    keep: int = 3  # checkpoints
    log_every: int = 1  # steps between two lines of rank 0; the other ranks write a tenth as often
    tensorboard: bool = False
    peak_tflops: float = 0.0  # of the device, for MFU; 0: looked up by its name

    def __post_init__(self) -> None:
        for name, holds, words in RULES:
            if not holds(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; {words}")
        if self.model == "gpt" and self.width % self.heads:
            raise ConfigError(f"width {self.width} does not divide by heads {self.heads}; every head has the same size")
        if (self.checkpoint_every or self.checkpoint_minutes or self.tensorboard) and not self.out:
            raise ConfigError("checkpoints and tensorboard need a folder: set out")


def one_of(*allowed: str, own: bool = False) -> tuple[Callable[[Any], bool], str]:
    """A check that a text is one of `allowed`, or an import path where the user's `own` will do; and its words."""
    words = f"it is one of: {', '.join(allowed)}{', mypkg.module:name' if own else ''}"
    return lambda value: value in allowed or (own and ":" in value), words


def rules_for(names: str, holds: Callable[[Any], bool], words: str) -> list[tuple[str, Callable[[Any], bool], str]]:
    return [(name, holds, words) for name in names.split()]


RULES = [
    *rules_for(
        "steps per_device_batch grad_accum base_batch layers heads width context vocabulary keep powersgd_rank "
        "log_every",
        lambda value: value >= 1,
        "it has to be at least 1",
    ),
    *rules_for("data_bytes timeout_s base_lr bucket_mb", lambda value: value > 0, "it has to be greater than 0"),
    *rules_for(
        "warmup_steps weight_decay momentum grad_clip min_lr_ratio workers powersgd_start checkpoint_every "
        "checkpoint_minutes peak_tflops",
        lambda value: value >= 0,
        "it cannot be negative",
    ),
    ("lr_scaling", *one_of("linear", "sqrt", "none")),
    ("device", *one_of("auto", "cpu", "cuda")),
    ("precision", *one_of("fp32", "bf16", "fp16")),
    ("hook", *one_of("none", "fp16", "bf16", "int8", "powersgd")),
    ("optimizer", *one_of("adamw", "sgd", own=True)),
    ("model", *one_of("gpt", own=True)),
    ("token_bytes", lambda value: value in (1, 2, 4), "it is 1, 2 or 4"),
]

TYPES: dict[str, Any] = typing.get_type_hints(Config)
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def load(path: str | None, settings: typing.Sequence[str] = ()) -> Config:
    """The configuration in the file at `path` (all defaults if None) with `KEY=VALUE` settings on top."""
    values: dict[str, Any] = {}
    for key, value in (read(Path(path)) if path else {}).items():
        values[key] = typed(key, value)
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ConfigError(f"--set {setting}: write KEY=VALUE, for example --set steps=60")
        key, dot, inner = name.partition(".")
        value = typed(key, {inner: from_text(setting, text)} if dot else from_text(setting, text, TYPES.get(key)))
        values[key] = {**values.get(key, {}), **value} if dot else value
    return Config(**values)


def from_text(setting: str, text: str, wanted: Any = None) -> Any:
    try:
        return text if wanted is str else plain_yaml.value(text)
    except plain_yaml.YamlError as error:
        raise ConfigError(f"--set {setting}: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file."""
    try:
        values = plain_yaml.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except plain_yaml.YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; it has to be a mapping of keys to values")
    return values or {}


def typed(key: str, value: Any) -> Any:
    """`value` as the type of `key`: a whole number may stand for any number; nothing else is converted."""
    if key not in TYPES:
        close = difflib.get_close_matches(key, TYPES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the keys are: {', '.join(TYPES)}"
        raise ConfigError(f"unknown key {key!r}; {hint}")
    wanted = TYPES[key]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is (typing.get_origin(wanted) or wanted):
        return value
    raise ConfigError(f"{key} is {value!r}; it has to be {KINDS.get(wanted, 'a mapping of names to values')}")


def imported(path: str, key: str) -> Callable[..., Any]:
    """What `mypkg.module:name`, the value of `key`, names; ConfigError where it cannot be imported."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key} is {path!r}, and importing it fails: {error}") from error
    if not callable(found):
        raise ConfigError(f"{key} is {path!r}, which is a {type(found).__name__}; it has to be callable")
    return found  # type: ignore[no-any-return]
