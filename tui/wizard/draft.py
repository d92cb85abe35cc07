"""What the user has typed so far, as text, and what it comes to. Pure: no Textual in here.

A draft is never wrong and never loses anything: it holds the text of every answer, the wrong ones too. `judged` turns
it into a profile through the engine's own reading, so that messages are those of a profile file.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine import hosts, profile
from engine.errors import RequestError
from engine.profile import Profile
from tui.wizard.fields import FIELDS, NODE_FIELDS, STEP_OF, field_of

if TYPE_CHECKING:
    from engine.profile import Node
    from tui.wizard.fields import Field

State = Literal["ok", "mistakes", "untouched"]

_BARE = re.compile(r"[^\s'\"\\]+")
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
_NEEDED = ("name", "program.path")
_NO_INTERFACE = "none"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A draft, read: `profile` holds something harmless where the draft is wrong; `mistakes` by question."""

    profile: Profile
    mistakes: dict[str, str]

    @property
    def complete(self) -> bool:
        return not self.mistakes


class Draft(msgspec.Struct, kw_only=True):
    """The answers so far, by profile key; `per_node` by host, for what the host list cannot say.

    `rest` is what no question asks, as profile data by key, and stays as it is.
    `path` is the file that it is saved to ("" = none yet) and `seen` that file's fingerprint when it was read.
    `visited` are the steps that the user has seen, `skip` the preflight checks that are left out.
    """

    answers: dict[str, str] = {}
    per_node: dict[str, dict[str, str]] = {}
    rest: dict[str, Any] = {}
    path: str = ""
    seen: str = ""
    visited: set[str] = set()
    skip: set[str] = set()

    @classmethod
    def of(cls, known: Profile, path: str = "", seen: str = "") -> Draft:
        """The answers that make this profile. Raises RequestError where typed answers cannot say the same."""
        draft = cls(path=path, seen=seen, visited=set(STEP_OF.values()))
        data = profile.plain_data(known)
        for key, field in FIELDS.items():
            value: Any = data
            for name in key.split("."):
                value = value.get(name, "") if isinstance(value, dict) else ""
            if key != "nodes" and value != "":
                draft.answers[key] = _typed(field, value)
        draft.rest = {
            f"slurm.{name}": value for name, value in data.get("slurm", {}).items() if f"slurm.{name}" not in FIELDS
        }
        if known.rendezvous.interface == "":
            draft.answers["rendezvous.interface"] = _NO_INTERFACE
        if known.slurm is not None and not any(step_of(key) == "slurm" for key in (*draft.answers, *draft.rest)):
            draft.answers["slurm.nodes"] = str(known.slurm.nodes)
        draft._take_nodes(known.nodes)
        if (again := draft.judged()).mistakes or again.profile != known:
            raise RequestError(
                f"profile {known.name} says something that this form cannot", remedy=f"edit the file: {path}"
            )
        return draft

    def get(self, key: str) -> str:
        return self.answers.get(key, "")

    def put(self, key: str, text: str) -> bool:
        """Note an answer; whether it differs from the one before."""
        if self.get(key) == text:
            return False
        if text:
            self.answers[key] = text
        else:
            self.answers.pop(key, None)
        return True

    def judged(self) -> Judged:
        """The profile that the answers make, and every mistake by question."""
        data: dict[str, Any] = {"version": "1"}
        own: dict[str, str] = {}
        for key, field in FIELDS.items():
            if key == "nodes" or not (self.get(key).strip() or key in _NEEDED):
                continue
            try:
                value = _value(field, self.get(key))
            except ValueError as error:
                own[key] = str(error)
                continue
            _put(data, key, value)
        for key, value in self.rest.items():
            _put(data, key, value)
        if data.get("rendezvous", {}).get("interface") == _NO_INTERFACE:
            data["rendezvous"]["interface"] = ""
        if data.get("launcher") == "slurm":
            data.setdefault("slurm", {})
        try:
            data["nodes"] = self._node_data()
        except RequestError as error:
            own["nodes"] = _sentence(error)
        found, mistakes = profile.judge(data)
        said: dict[str, list[str]] = {key: [text] for key, text in own.items()}
        for path, text in mistakes.items():
            key = field_of(path) or ("batch.per_device" if path == "batch" else "launcher")
            if key not in own:
                said.setdefault(key, []).append(self._placed(path, key, text.replace(", without quotes", ""), found))
        return Judged(profile=found, mistakes={key: "; ".join(texts) for key, texts in said.items()})

    def states(self, judged: Judged) -> dict[str, State]:
        """How every step of questions stands."""
        wrong = {step_of(key) for key in judged.mistakes}
        typed = {step_of(key) for key in self.answers}
        return {
            step: "untouched"
            if step not in self.visited and (step in wrong or step not in typed)
            else "mistakes"
            if step in wrong
            else "ok"
            for step in dict.fromkeys(STEP_OF.values())
        }

    def node_key(self, rank: int) -> str:
        """The key in `per_node` of the node at this place in the list."""
        names = [entry.host for entry in hosts.expand(self.get("nodes"))]
        return _node_key(names[rank], names[:rank].count(names[rank]))

    def differs_from(self, other: Draft) -> bool:
        return (self.answers, self.per_node) != (other.answers, other.per_node)

    def _take_nodes(self, nodes: tuple[Node, ...]) -> None:
        groups: list[tuple[str, str, list[str]]] = []
        count: Counter[str] = Counter()
        for node in nodes:
            login = f"{node.user}@" if node.user else ""
            options = f" slots={node.gpus}" if node.gpus != "auto" else ""
            options += f" port={node.port}" if node.port is not None else ""
            if groups and groups[-1][:2] == (login, options):
                groups[-1][2].append(node.host)
            else:
                groups.append((login, options, [node.host]))
            extras = {
                name: _typed(field, list(value) if isinstance(value, tuple) else value)
                for name, field in NODE_FIELDS.items()
                if name != "gpus" and (value := getattr(node, name))
            }
            if extras:
                self.per_node[_node_key(node.host, count[node.host])] = extras
            count[node.host] += 1
        lines = [
            f"{login}{part}{options}"
            for login, options, names in groups
            for part in _OUTSIDE_BRACKETS.split(hosts.fold(names))
        ]
        self.put("nodes", "\n".join(lines))

    def _node_data(self) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = []
        count: Counter[str] = Counter()
        for entry in hosts.expand(self.get("nodes")):
            node: dict[str, Any] = {"host": entry.host, "user": entry.user}
            if entry.slots is not None:
                node["gpus"] = entry.slots
            if entry.port is not None:
                node["port"] = entry.port
            extras = self.per_node.get(_node_key(entry.host, count[entry.host]), {})
            node |= {name: _value(NODE_FIELDS[name], text) for name, text in extras.items() if text.strip()}
            count[entry.host] += 1
            data.append(node)
        return data

    @staticmethod
    def _placed(path: str, key: str, text: str, found: Profile) -> str:
        """A message under a question that holds many things: about which of them it is."""
        inside = path[len(key) :]
        if not inside:
            return text
        if key == "nodes" and (match := re.match(r"\[(\d+)\]\.?(.*)", inside)):
            rank, name = int(match[1]), match[2]
            host = found.nodes[rank].host if rank < len(found.nodes) else f"node {rank}"
            return f"{host}: {text}" if name in ("", "host") else f"{host}: {NODE_LABELS.get(name, name)}: {text}"
        if match := re.fullmatch(r"\[(\d+)\]", inside):
            return f"item {int(match[1]) + 1}: {text}"
        return f"{inside.lstrip('.')}: {text}"


NODE_LABELS = {name: field.label.lower() for name, field in NODE_FIELDS.items()}


def step_of(key: str) -> str:
    """The step that asks this question."""
    return STEP_OF[key.partition(".")[0]]


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *outer, name = key.split(".")
    for part in outer:
        data = data.setdefault(part, {})
    data[name] = value


def _node_key(host: str, before: int) -> str:
    """Nodes may share a host (several on this machine): then they are counted."""
    return f"{host}#{before}" if before else host


def _value(field: Field, text: str) -> Any:
    """An answer as profile data. Raises ValueError, saying why, for text that is no list of its kind."""
    match field.kind:
        case "words":
            try:
                return shlex.split(text)
            except ValueError as error:
                raise ValueError(f"{str(error).lower()}: a quote that opens also closes") from None
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "names" | "numbers":
            return [word for word in re.split(r"[\s,]+", text) if word]
        case "env":
            return _variables(text)
        case "block":
            return text
        case _:
            return text.strip()


def _typed(field: Field, value: Any) -> str:
    """Profile data as the user would have typed it."""
    match field.kind:
        case "words":
            return " ".join(word if _BARE.fullmatch(word) else shlex.quote(word) for word in value)
        case "lines":
            return "\n".join(value)
        case "names":
            return " ".join(value)
        case "numbers":
            return ",".join(map(str, value))
        case "env":
            return "\n".join(f"{name}={_quoted(text)}" for name, text in value.items())
        case "flag":
            return "true" if value else ""
        case "choice" if isinstance(value, bool):
            return "true" if value else "false"
        case _:
            return str(value)


def _variables(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name, equals, value = line.partition("=")
        name = name.strip().removeprefix("export ").strip()
        if not line.strip():
            continue
        if not equals:
            raise ValueError(f"line {number}: no '='; write NAME=VALUE")
        if name in found:
            raise ValueError(f"line {number}: {name} is written twice; keep one")
        found[name] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    if len(value) < 2 or not value[0] == value[-1] == '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value[1:-1]


def _quoted(value: str) -> str:
    """A variable's value on one line; in double quotes where it would read as something else."""
    return json.dumps(value) if not value.isprintable() or value[:1] == '"' else value


def _sentence(error: RequestError) -> str:
    text = error.text.removeprefix("host list, ")
    return f"{text}; {error.remedy}" if error.remedy else text
