"""What a profile must make sense of beyond the types of its fields. Pure: a profile in, problems out.

A rule is a function of the whole profile, as written (host ranges not yet expanded), that yields (path, text) for each
problem; the text says what was found, why it cannot stand, and what to write instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from engine import placeholders
from engine.errors import RequestError
from engine.hosts import LOCAL, MAX_HOSTS, expand_names, host_mistake, user_mistake
from engine.profile.slurm_rules import slurm_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.profile.model import Profile

Problem: TypeAlias = tuple[str, str]

MAX_RANKS_PER_NODE = 1_024
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_BY_TORCHRUN = "torchrun sets it for every rank"
_BY_US = "Rankdeck passes it to torchrun itself"
RESERVED_ENV = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"), _BY_TORCHRUN),
    **dict.fromkeys(
        ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME"), _BY_TORCHRUN
    ),
    **dict.fromkeys(("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"), _BY_TORCHRUN),
    **dict.fromkeys(("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE"), _BY_TORCHRUN),
    "MASTER_ADDR": "set rendezvous.master_addr instead",
    "MASTER_PORT": "set rendezvous.master_port instead",
    "NODE_RANK": "the order of nodes is the node rank",
    "NNODES": "it is the number of nodes",
    "NPROC_PER_NODE": "set gpus on the node instead",
    "TORCH_ELASTIC_WORKER_IDENTICAL": "it gives wrong ranks when nodes differ in their number of ranks",
    **dict.fromkeys(("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_STANDALONE", "PET_MODULE"), _BY_US),
    **dict.fromkeys(
        ("PET_RDZV_BACKEND", "PET_RDZV_ENDPOINT", "PET_RDZV_ID", "PET_RDZV_CONF", "PET_LOCAL_ADDR"), _BY_US
    ),
    **dict.fromkeys(
        ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_MAX_RESTARTS", "PET_NO_PYTHON", "PET_RUN_PATH"), _BY_US
    ),
    **dict.fromkeys(("PET_LOG_DIR", "PET_REDIRECTS", "PET_TEE"), "Rankdeck keeps the output of every rank itself"),
}
XTUNER_ENV = {"PORT": "set rendezvous.master_port instead", "ADDR": "set rendezvous.master_addr instead"}

_SECRET_WORDS = {"TOKEN", "PASSWORD", "PASSWD", "SECRET", "APIKEY", "CREDENTIALS"}
_SECRET_PAIRS = ("API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY")
_NOT_SECRET_ENDS = {"PATH", "FILE", "DIR", "NAME", "ID", "URL"}
_SECRET_VALUE = re.compile(r"(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{16,}")


def looks_secret(name: str) -> bool:
    """Whether a variable of this name usually holds a secret: HF_TOKEN, WANDB_API_KEY; not TOKENIZERS_PARALLELISM."""
    words = name.upper().split("_")
    if words[-1] in _NOT_SECRET_ENDS:
        return False
    return bool(_SECRET_WORDS.intersection(words)) or any(pair in name.upper() for pair in _SECRET_PAIRS)


def problems(profile: Profile) -> Iterator[Problem]:
    """Every problem of a profile that reads well."""
    for rule in RULES:
        yield from rule(profile)


def _name(profile: Profile) -> Iterator[Problem]:
    if not RUN_NAME.fullmatch(profile.name):
        yield (
            "name",
            f"found {profile.name[:60]!r}; allowed: 1 to 40 of a-z 0-9 . _ - starting with a letter or digit "
            "(it becomes part of folder names)",
        )


def _launcher(profile: Profile) -> Iterator[Problem]:
    if profile.launcher == "torchrun" and not profile.nodes:
        yield "nodes", "no nodes; torchrun needs at least one, such as `- host: gpu01`"
    if profile.launcher == "slurm" and profile.slurm is None:
        yield "slurm", "missing; launcher slurm needs at least `slurm: {nodes: 1, gpus_per_node: 8}`"


def _hosts(profile: Profile) -> Iterator[Problem]:
    seen: dict[tuple[str, int | None, str], int] = {}
    total = 0
    for i, node in enumerate(profile.nodes):
        path = f"nodes[{i}].host"
        mistake = "" if "[" in node.host or "," in node.host else host_mistake(node.host)
        if mistake:
            yield path, f"found {node.host[:60]!r}: {mistake}"
            continue
        try:
            hosts = expand_names(node.host)
        except RequestError as error:
            text = error.text.partition(": ")[2]
            yield path, f"{text}; {error.remedy}" if error.remedy else text
            continue
        total += len(hosts)
        if total > MAX_HOSTS:
            yield path, f"{total:,} hosts with this one; at most {MAX_HOSTS:,} are allowed"
            return
        if len(hosts) > 1 and node.addr:
            yield (
                f"nodes[{i}].addr",
                f"one address for {len(hosts)} hosts; leave it out (preflight finds it), or list each",
            )
        for host in hosts:
            key = (host, node.port, node.user)
            if host != LOCAL and key in seen:
                yield path, f"{host} is already nodes[{seen[key]}]; name each host once (gpus: 2 gives it two ranks)"
                break
            seen[key] = i


def _logins(profile: Profile) -> Iterator[Problem]:
    for i, node in enumerate(profile.nodes):
        if mistake := user_mistake(node.user):
            yield f"nodes[{i}].user", f"found {node.user[:60]!r}: {mistake}"
        if node.addr and (mistake := host_mistake(node.addr)):
            yield f"nodes[{i}].addr", f"found {node.addr[:60]!r}: {mistake}"
        if node.port is not None and not 1 <= node.port <= 65_535:
            yield f"nodes[{i}].port", f"found {node.port}; allowed: 1 to 65535"
    if profile.slurm is not None and profile.slurm.login:
        user, _, host = profile.slurm.login.rpartition("@")
        if mistake := user_mistake(user) or host_mistake(host):
            yield "slurm.login", f"found {profile.slurm.login[:60]!r}: {mistake}; allowed: login01, or ml@login01"


def _gpus(profile: Profile) -> Iterator[Problem]:
    for i, node in enumerate(profile.nodes):
        path = f"nodes[{i}]"
        if node.gpus != "auto" and not 1 <= node.gpus <= MAX_RANKS_PER_NODE:
            yield (
                f"{path}.gpus",
                f"found {node.gpus}; allowed: 1 to {MAX_RANKS_PER_NODE}, or auto (a rank also runs on a CPU)",
            )
        if any(not 0 <= device < MAX_RANKS_PER_NODE for device in node.devices):
            yield f"{path}.devices", f"found {list(node.devices)}; allowed: GPU indices from 0"
        elif len(set(node.devices)) != len(node.devices):
            yield f"{path}.devices", f"found {list(node.devices)}: a GPU is named twice"
        elif node.devices and node.gpus not in ("auto", len(node.devices)):
            picked = f"{len(node.devices)} device{'s' * (len(node.devices) > 1)}"
            yield f"{path}.gpus", f"gpus is {node.gpus}, devices picks {picked}; leave gpus out, or make them agree"


def _rendezvous(profile: Profile) -> Iterator[Problem]:
    rendezvous = profile.rendezvous
    if rendezvous.master_port != "auto" and not 1 <= rendezvous.master_port <= 65_535:
        yield "rendezvous.master_port", f"found {rendezvous.master_port}; allowed: 1 to 65535, or auto"
    if rendezvous.master_addr and (mistake := host_mistake(rendezvous.master_addr)):
        yield "rendezvous.master_addr", f"found {rendezvous.master_addr[:60]!r}: {mistake}"
    if rendezvous.interface and not INTERFACE.fullmatch(rendezvous.interface):
        yield "rendezvous.interface", f"found {rendezvous.interface[:60]!r}; allowed: auto, or a device such as eth0"
    if not 0 <= rendezvous.max_restarts <= 1_000:
        yield "rendezvous.max_restarts", f"found {rendezvous.max_restarts}; allowed: 0 to 1000"


def _program(profile: Profile) -> Iterator[Problem]:
    program = profile.program
    if not program.path:
        yield "program.path", "found nothing; allowed: the file, module or command to run"
    elif program.kind == "module" and not MODULE.fullmatch(program.path):
        yield "program.path", f"found {program.path[:60]!r}; allowed: a Python module such as pkg.train (kind: module)"
    elif mistake := _path_mistake(program.path):
        yield "program.path", f"found {program.path[:60]!r}: {mistake}"
    for i, arg in enumerate(program.args):
        path = f"program.args[{i}]"
        if bad := next((c for c in arg if (ord(c) < 32 and c != "\t") or ord(c) == 127), None):
            yield path, f"found {arg[:60]!r}: it contains {bad!r}; put such text into a file"
        if _SECRET_VALUE.search(arg):
            yield path, "this looks like a secret, and arguments are seen by everyone; put a name under secrets:"
        yield from ((path, text) for text in placeholders.mistakes(arg))
    if mistake := _pattern_mistake(program.metric_pattern):
        yield "program.metric_pattern", f"found {program.metric_pattern[:60]!r}: {mistake}"
    places = [("program", program.workdir, program.activate)]
    places += [(f"nodes[{i}]", node.workdir, node.activate) for i, node in enumerate(profile.nodes)]
    for path, workdir, activate in places:
        if workdir and (mistake := _path_mistake(workdir) or _relative(workdir)):
            yield f"{path}.workdir", f"found {workdir[:60]!r}: {mistake}"
        if bad := next((c for c in activate if (ord(c) < 32 and c not in "\t\n") or ord(c) == 127), None):
            yield f"{path}.activate", f"it contains {bad!r}"
    if profile.state_dir and (mistake := _path_mistake(profile.state_dir) or _relative(profile.state_dir)):
        yield "state_dir", f"found {profile.state_dir[:60]!r}: {mistake}"


def _pattern_mistake(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        return f"it is no regular expression: {error}"
    return "" if groups or not pattern else "it names nothing to read; write (?P<step>…) and (?P<loss>…)"


def _path_mistake(path: str) -> str:
    if path.startswith("-"):
        return "it starts with '-', which reads as an option; write ./ before it"
    if bad := next((c for c in path if not c.isprintable()), None):
        return f"it contains {bad!r}"
    if "$" in path:
        return "variables are not expanded here; write the path out, or start it with ~/"
    if path.startswith("~") and path != "~" and not path.startswith("~/"):
        return "only ~/ is expanded; write another user's home out"
    return ""


def _relative(path: str) -> str:
    return "" if path.startswith(("/", "~")) else "it is relative; start it with / or ~/"


def _env(profile: Profile) -> Iterator[Problem]:
    for name, value in profile.env.items():
        path = f"env.{name[:60]}"
        if not ENV_NAME.fullmatch(name):
            yield path, "not a variable name; allowed: letters, digits and _, not starting with a digit"
            continue
        if reason := _reserved(name, profile):
            yield path, f"reserved: {reason}"
        if (looks_secret(name) and value) or _SECRET_VALUE.search(value):
            yield path, "this looks like a secret; put the name under secrets: and the value into your environment"
        if bad := next((c for c in value if (ord(c) < 32 and c not in "\t\n") or ord(c) == 127), None):
            yield path, f"the value contains {bad!r}"
        yield from ((path, text) for text in placeholders.mistakes(value))


def _reserved(name: str, profile: Profile) -> str:
    if name in RESERVED_ENV:
        return RESERVED_ENV[name]
    if name.startswith("RANKDECK_"):
        return "names that start with RANKDECK_ are Rankdeck's own"
    if profile.program.kind == "xtuner" and name in XTUNER_ENV:
        return XTUNER_ENV[name]
    if name == "CUDA_VISIBLE_DEVICES" and any(node.devices for node in profile.nodes):
        return "devices on a node sets it"
    return ""


def _secrets(profile: Profile) -> Iterator[Problem]:
    for i, name in enumerate(profile.secrets):
        path = f"secrets[{i}]"
        if not ENV_NAME.fullmatch(name):
            shown = "" if _SECRET_VALUE.search(name) else f"found {name[:60]!r}; "
            yield path, f"{shown}allowed: the name of a variable; its value stays in your environment"
        elif reason := _reserved(name, profile):
            yield path, f"{name} is reserved: {reason}"
        elif _SECRET_VALUE.fullmatch(name):
            yield path, "this looks like the secret itself; write the name of the variable that holds it"
        if name in profile.env:
            yield path, f"{name[:60]} is under env as well; keep it here only"
        if name in profile.secrets[:i]:
            yield path, f"{name[:60]} is named twice"


def _batch(profile: Profile) -> Iterator[Problem]:
    used = {name for text in (*profile.program.args, *profile.env.values()) for name in placeholders.names(text)}
    batch = profile.batch
    if batch is None:
        if needed := sorted(used & placeholders.NEED_BATCH):
            yield (
                "batch",
                f"missing; {', '.join(f'{{{name}}}' for name in needed)} needs at least `batch: {{per_device: 4}}`",
            )
        return
    for name in ("per_device", "grad_accum", "base_batch", "sequence_length"):
        value = getattr(batch, name)
        if value is not None and value < 1:
            yield f"batch.{name}", f"found {value}; allowed: a whole number from 1"
    if batch.base_lr is not None and batch.base_lr <= 0:
        yield "batch.base_lr", f"found {batch.base_lr:g}; allowed: a positive number"
    if batch.base_lr is not None and batch.base_batch is None and batch.lr_scaling != "none":
        yield (
            "batch.base_batch",
            f"missing; lr_scaling {batch.lr_scaling} needs the total batch that base_lr is tuned at, or write "
            "lr_scaling: none",
        )
    if "lr" in used and batch.base_lr is None:
        yield "batch.base_lr", "missing; {lr} needs it"


RULES = (_name, _launcher, _hosts, _logins, _gpus, _rendezvous, _program, _env, _secrets, _batch, slurm_problems)
