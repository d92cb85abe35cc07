"""What a step of the wizard is: some questions, and what else belongs beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from tui.wizard.fields import FIELDS
from tui.wizard.question import Question, questions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from textual.app import ComposeResult
    from textual.widget import Widget

    from engine.profile import Profile
    from tui.app import RankdeckApp
    from tui.wizard.sheet import Sheet


class Step(VerticalScroll, can_focus=False):
    """A subclass says its `name`, `title` and `keys`. It shows the sheet and changes nothing in it.

    To the screen it posts what its questions post, and the messages below. Keys of its own are bindings of its own.
    """

    app: RankdeckApp
    key: ClassVar[str]
    title: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()
    previews: ClassVar[bool] = True
    """Whether the commands stay in view on a small screen."""

    class Answered(Message):
        """Answers by question that were not typed; `look`: preflight is to be run again with them."""

        def __init__(self, answers: Mapping[str, str], *, look: bool = False) -> None:
            super().__init__()
            self.answers = answers
            self.look = look

    class Retry(Message):
        """Preflight is to look again at a node, for a check, or both."""

        def __init__(self, rank: int | None, check: str | None) -> None:
            super().__init__()
            self.rank = rank
            self.check = check

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(id=f"step-{self.key}")
        self.sheet = sheet

    @classmethod
    def used(cls, profile: Profile) -> bool:
        """Whether the answers have anything to do with this profile's launcher."""
        return True

    def compose(self) -> ComposeResult:
        yield Static(Content(self.title), classes="title")
        for key in self.keys:
            yield Question(FIELDS[key], self.sheet.draft.get(key))

    def settle(self, told: Collection[str]) -> None:
        """The sheet has settled. Mistakes are shown of the questions in `told`, which the user has left."""
        proposals = self.sheet.proposals()
        for key, question in questions(self).items():
            mistake = self.sheet.judged.mistakes.get(key, "") if key in told else ""
            question.tell(mistake, proposals.get(key) if key not in self.sheet.judged.mistakes else None)

    def working(self) -> tuple[object, ...]:
        """What decides which of its own keys work."""
        return ()

    def first(self) -> Widget | None:
        """What is to have the focus when the step is shown."""
        for question in self.query(Question):
            return question.control
        return None
