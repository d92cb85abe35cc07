"""The step of the batch: the arithmetic is done as the numbers are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.widgets import Static

from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult

SPLIT_SHOWN = 8


class BatchStep(Step):
    key = "batch"
    title = "How much at a time, and how fast?"
    keys: ClassVar[tuple[str, ...]] = (
        "batch.per_device",
        "batch.grad_accum",
        "batch.base_lr",
        "batch.base_batch",
        "batch.lr_scaling",
        "batch.sequence_length",
    )

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static(id="sums", classes="aside")

    def settle(self, told: Collection[str]) -> None:
        super().settle(told)
        made = self.sheet.sums()
        width = max((len(name) for name, _ in made.lines), default=0)
        lines = [Content.assemble((f"{name:<{width}}  ", "$secondary"), (text, "bold")) for name, text in made.lines]
        lines += [Content.styled(f"{self.app.glyphs.warning} {text}", "$warning") for text in made.warnings]
        if len(made.split) > 1:
            lines.append(Content.styled("each step", "$secondary"))
            lines += [Content(f"  {line}") for line in made.split[:SPLIT_SHOWN]]
            if len(made.split) > SPLIT_SHOWN:
                lines.append(Content.styled(f"  and {len(made.split) - SPLIT_SHOWN} other sizes", "$secondary"))
        self.query_one("#sums", Static).update(Content("\n").join(lines))
