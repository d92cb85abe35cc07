"""The step of the nodes: paste anything, see what it expands to, and what the machines themselves say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Static

from engine.errors import RankdeckError
from engine.hosts import fold
from tui.wizard.asking import OneNode, PickHosts
from tui.wizard.fields import FIELDS
from tui.wizard.node_table import NodeTable
from tui.wizard.offers import offers
from tui.wizard.proposals import Proposal
from tui.wizard.question import Question, questions
from tui.wizard.step import Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from engine.preflight import Observation
    from engine.profile import Profile
    from tui.rows import Rows


class NodesStep(Step):
    key = "nodes"
    title = "Which machines?"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f6", "pick", "pick hosts", id="wizard.pick")]
    keys: ClassVar[tuple[str, ...]] = ("nodes", "state_dir")

    @classmethod
    def used(cls, profile: Profile) -> bool:
        return profile.launcher == "torchrun"

    def compose(self) -> ComposeResult:
        yield Static(Content(self.title), classes="title")
        yield Question(FIELDS["nodes"], self.sheet.draft.get("nodes"))
        yield NodeTable(self.sheet)
        yield Static(id="node-story")
        yield Question(FIELDS["state_dir"], self.sheet.draft.get("state_dir"))

    def settle(self, told: Collection[str]) -> None:
        super().settle(told)
        if "nodes" not in self.sheet.judged.mistakes or "nodes" not in told:
            questions(self)["nodes"].tell("", Proposal(why=self._expansion(), good=None))
        table = self.query_one(NodeTable)
        table.settle()
        table.display = table.count() > 0
        self.look()

    def on_rows_moved(self, event: Rows.Moved) -> None:
        event.stop()
        self.look()

    @work
    async def action_pick(self) -> None:
        """Hosts that are known here, to be added to the list."""
        picked = await self.app.answer(PickHosts(offers()))
        if picked:
            text = self.sheet.draft.get("nodes")
            gap = "\n" if text and not text.endswith("\n") else ""
            self.post_message(self.Answered({"nodes": text + gap + "\n".join(picked)}))

    @work
    async def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """What differs on the node that was chosen."""
        draft = self.sheet.draft
        try:
            key = draft.node_key(event.index)
        except RankdeckError:
            return
        changed = await self.app.answer(OneNode(key, draft.per_node.get(key, {})))
        if changed is not None:
            draft.per_node[key] = changed
            self.post_message(self.Answered({}))

    def look(self) -> None:
        """Show what there is to say of the node under the cursor, in full."""
        story = self.query_one("#node-story", Static)
        look = self.sheet.observations.get(self.query_one(NodeTable).cursor)
        text = story_of(look)
        story.display = bool(text)
        story.update(Content.styled(text, "$error" if isinstance(look, RankdeckError) else "$secondary"))

    def _expansion(self) -> str:
        """How many nodes, which, and how many of them have answered."""
        nodes = self.sheet.profile.nodes
        if not nodes:
            return "ranges, hostfile, nodelist; F6 offers known hosts"
        count = "1 node" if len(nodes) == 1 else f"{len(nodes):,} nodes"
        looks = Counter(isinstance(look, RankdeckError) for look in self.sheet.observations.values())
        told = [f"{looks[False]} answered"] if looks[False] else []
        told += [f"{looks[True]} did not"] if looks[True] else []
        told += [f"{waiting} being asked"] if (waiting := len(nodes) - looks.total()) else []
        names = fold(dict.fromkeys(node.host for node in nodes))
        return f"{count}: {names if len(names) <= 120 else names[:119] + '…'} ({', '.join(told)})"


def story_of(look: Observation | RankdeckError | None) -> str:
    """What there is to say of a node beyond its row in the table."""
    if look is None:
        return ""
    if isinstance(look, RankdeckError):
        return str(look)
    python = look.python
    parts = [f"{look.system.hostname}: {look.system.cpu_count} CPUs, {look.system.memory / 2**30:.0f} GiB"]
    if python.error or not python.activated:
        output = " ".join(python.output.split())[:160]
        parts.append(f"the environment does not come up: {python.error or output or 'the activation fails'}")
    elif not python.torch:
        parts.append(f"no torch in {python.python or 'its Python'} (step 4 has an activation line)")
    if look.gpus.error:
        parts.append(look.gpus.error)
    return "; ".join(parts)
