"""The step that names the profile and says who starts its ranks."""

from __future__ import annotations

from typing import ClassVar

from tui.wizard.step import Step


class LauncherStep(Step):
    key = "launcher"
    title = "What is it called, and who starts it?"
    keys: ClassVar[tuple[str, ...]] = ("name", "launcher")
