"""The training engine's configuration: strict, and every mistake says what to write instead."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from engine.train.config import imported, load
from engine.train.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("warmup=3", "did you mean warmup_steps?"),
        ("steps=many", "steps is 'many'; it has to be a whole number"),
        ("steps=1.5", "steps is 1.5; it has to be a whole number"),
        ("steps=true", "steps is True; it has to be a whole number"),
        ("steps=0", "steps is 0; it has to be at least 1"),
        ("steps", "write KEY=VALUE"),
        ("lr_scaling=cubic", "one of: linear, sqrt, none"),
        ("hook=gzip", "one of: none, fp16, bf16, int8, powersgd"),
        ("optimizer=lion", "one of: adamw, sgd, mypkg.module:name"),
        ("heads=3", "width 128 does not divide by heads 3"),
        ("timeout_s=0", "greater than 0"),
        ("base_lr=nan", "it has to be a number"),
        ("base_lr=[1]", "base_lr is [1]; it has to be a number"),
        ("base_lr=[1", "--set base_lr=[1: line 1: [ does not end"),
        ("static_graph=yes", "static_graph is 'yes'; it has to be true or false"),
        ("model_args=3", "a mapping of names to values"),
        ("checkpoint_every=5", "need a folder: set out"),
    ],
)
def test_a_wrong_setting_says_what_to_write_instead(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(None, [setting])


def test_a_yaml_file_is_read_and_settings_come_on_top(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("steps: 7\nbase_lr: 3e-4\nout: runs/1\nmodel_args: {depth: 3, name: x}\n")
    config = load(str(file), ["steps=9", "model_args.depth=4", "grad_clip=1", "data=2024"])
    assert (config.steps, config.base_lr, config.out) == (9, 3e-4, "runs/1")
    assert config.model_args == {"depth": 4, "name": "x"}
    assert type(config.grad_clip) is float
    assert config.data == "2024"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 7\nstep: 8\n", "did you mean steps?"),
        ("steps: 7\nsteps: 8\n", "line 2: steps is there twice"),
        ("[1, 2]", "holds a list; it has to be a mapping"),
        ("steps: '7'", "steps is '7'; it has to be a whole number"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(str(file))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot read nowhere\.yaml"):
        load("nowhere.yaml")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_such_module:build", "No module named 'no_such_module'"),
        ("json:build", "has no attribute 'build'"),
        ("sys:path", "which is a list; it has to be callable"),
    ],
)
def test_an_import_path_that_leads_nowhere_says_why(path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        imported(path, "model")


def test_the_configuration_is_judged_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("engine.train")]:
        monkeypatch.delitem(sys.modules, name)
    from engine.train.config import load as again

    assert again(None, ["steps=3"]).steps == 3
