"""What a training run is asked to do: one flat, strict table of keys, each with a default."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import typing
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A key, value or file that cannot be used; the text says what to write instead."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every key of a CONFIG file and of `--set KEY=VALUE`. Sizes are tokens (bytes) and samples; times are seconds."""

    steps: int = 200  # optimizer steps
    per_device_batch: int = 8  # samples a rank and micro-step
    grad_accum: int = 1  # micro-steps an optimizer step
    base_lr: float = 3.0e-3  # learning rate at base_batch
    base_batch: int = 32  # total batch that base_lr belongs to
    lr_scaling: str = "sqrt"  # linear | sqrt | none
    warmup_steps: int = 10
    min_lr_ratio: float = 0.1  # the cosine ends at this share of the scaled learning rate
    weight_decay: float = 0.1
    grad_clip: float = 1.0  # 0 leaves the gradients as they are; the norm is reported either way
    layers: int = 2
    heads: int = 4
    width: int = 128
    context: int = 64  # tokens a sample
    data: str = ""  # folder of text; empty: this Python's own standard library
    data_glob: str = "*.py"
    data_bytes: int = 3_000_000  # read no more than this
    seed: int = 1234
    log_every: int = 1  # steps between two lines of rank 0; the other ranks write a tenth as often
    timeout_s: float = 120.0  # how long a collective waits for a rank that does not come
    device: str = "auto"  # auto | cpu | cuda

    def __post_init__(self) -> None:
        for name in ("steps", "per_device_batch", "grad_accum", "base_batch", "layers", "heads", "width", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it has to be at least 1")
        for name in ("log_every", "data_bytes", "timeout_s", "base_lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it has to be greater than 0")
        for name in ("warmup_steps", "weight_decay", "grad_clip", "min_lr_ratio"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative")
        for name, allowed in (("lr_scaling", ("linear", "sqrt", "none")), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is one of: {', '.join(allowed)}")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} does not divide by heads {self.heads}; every head has the same size")


TYPES: dict[str, type] = typing.get_type_hints(Config)


def load(path: str | None, settings: typing.Sequence[str] = ()) -> Config:
    """The configuration in the file at `path` (all defaults if None) with `KEY=VALUE` settings on top."""
    values: dict[str, Any] = {}
    for key, value in (read(Path(path)) if path else {}).items():
        values[key] = typed(key, value)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write KEY=VALUE, for example --set steps=60")
        values[key.strip()] = typed(key.strip(), text.strip())
    return Config(**values)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, or in a YAML file where PyYAML or ruamel.yaml can be imported."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    try:
        values = json.loads(text)
    except ValueError as json_error:
        values = from_yaml(text, path, json_error)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; it has to be a mapping of keys to values")
    return {str(key): value for key, value in values.items()}


def from_yaml(text: str, path: Path, json_error: ValueError) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        try:
            yaml = importlib.import_module("ruamel.yaml").YAML(typ="safe", pure=True)
        except ImportError:
            raise ConfigError(
                f"{path} is not JSON ({json_error}), and this Python has no YAML reader: "
                "install PyYAML or ruamel.yaml here, write the file as JSON, or use --set KEY=VALUE"
            ) from json_error
    try:
        return yaml.safe_load(text) if hasattr(yaml, "safe_load") else yaml.load(text)
    except Exception as error:  # the two libraries share no error class
        raise ConfigError(f"{path} is neither JSON nor YAML: {error}") from error


def typed(key: str, value: Any) -> Any:
    """`value` as the type of `key`: a number may come as text (YAML reads 3e-4 as text); nothing else is converted."""
    if key not in TYPES:
        close = difflib.get_close_matches(key, TYPES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the keys are: {', '.join(TYPES)}"
        raise ConfigError(f"unknown key {key!r}; {hint}")
    wanted = TYPES[key]
    if isinstance(value, wanted) and not isinstance(value, bool):
        return value
    try:
        if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            return float(value)
        if wanted is int and isinstance(value, str):
            return int(value.replace("_", ""))
    except ValueError:
        pass
    kind = {int: "a whole number", float: "a number", str: "text"}[wanted]
    raise ConfigError(f"{key} is {value!r}; it has to be {kind}")
