"""The command line, declared. Nothing heavier than argparse is imported, so that `--help` answers at once."""

from __future__ import annotations

import argparse

from engine import __version__

EXITS = """exit codes: 0 the job succeeded · 1 the job failed · 2 the request is wrong (profile, flags) ·
3 preflight found an error, nothing was started · 4 a machine or network let us down · 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    """The whole command line of `rankdeck`."""
    top = argparse.ArgumentParser(
        prog="rankdeck",
        description="From a list of hosts to a watched multi-node training run.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rankdeck {__version__}")
    look(top)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=EXITS)

    new = command("new", "make a profile, question by question (needs a terminal)")
    new.add_argument("name", nargs="?", default="", metavar="NAME", help="what it is to be called")

    demo = command("demo", "train a small GPT on two nodes × two ranks on this machine, watched")
    demo.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default 1000; as text 60)")
    output(demo)

    check = command("check", "preflight only: ask every node, judge, start nothing")
    profile(check)
    skips(check)
    check.add_argument("--json", action="store_true", help="a JSON object a finding on stdout, as soon as it is final")
    check.add_argument(
        "--speed",
        action=argparse.BooleanOptionalAction,
        help="measure what the lines between the nodes carry (default: where no job runs)",
    )
    collective(check)
    check.add_argument("--fix", action="store_true", help="write what mends the findings into the profile, check again")

    show = command("print", "print what would run, byte for byte; start nothing")
    profile(show)
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=("shell", "sbatch", "srun", "json"),
        help="torchrun: shell (default) or json; slurm: sbatch (default), srun or json",
    )
    form.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    show.add_argument("--resolve", action="store_true", help="ask the nodes for what the profile leaves to be found")

    launch = command("launch", "preflight, launch, watch; the run goes on when you leave")
    profile(launch)
    skips(launch)
    collective(launch)
    launch.add_argument("--fix", action="store_true", help="mend what preflight finds, where settings do, for this run")
    launch.add_argument("--detach", action="store_true", help="start it, print the name of the run, leave")
    patience(launch)
    output(launch)

    attach = command("attach", "watch a running or finished run")
    run(attach, optional=True)
    attach.add_argument(
        "--login", metavar="[USER@]HOST", help="RUN is the number of a Slurm job; ask this login node which run it is"
    )
    attach.add_argument(
        "--state-dir",
        default="",
        metavar="DIR",
        help="with --login: the state_dir of the job's profile, where it has one",
    )
    patience(attach)
    output(attach)

    runs = command("runs", "list the runs that this machine knows")
    runs.add_argument("--json", action="store_true", help="a JSON object a run on stdout")

    stop = command("stop", "stop a run on every node and prove that nothing is left")
    run(stop)
    stop.add_argument("--json", action="store_true", help="a JSON object a node on stdout")
    stop.add_argument(
        "--grace", type=seconds, default=35.0, metavar="S", help="seconds between SIGTERM and SIGKILL (default 35)"
    )

    logs = command("logs", "print the logs of a run: one rank byte for byte, or all with a prefix")
    run(logs, optional=True)
    logs.add_argument("--rank", type=int, metavar="R", help="this rank only, byte for byte when stdout is no terminal")
    logs.add_argument("--stderr", action="store_true", help="stderr instead of stdout")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the run ends")
    logs.add_argument("--json", action="store_true", help="a JSON object a line of the logs on stdout")

    pull = command("pull", "fetch every byte of a run's logs and journals")
    run(pull)
    pull.add_argument("directory", nargs="?", metavar="DIR", help="copy them there too")
    pull.add_argument("--json", action="store_true", help="a JSON object a file on stdout")

    reap = command("reap", "find and remove what earlier runs of ours left on the nodes")
    profile(reap)
    reap.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    reap.add_argument("--json", action="store_true", help="a JSON object a process on stdout")

    metrics = command("metrics", "read loss, step time and throughput out of training logs")
    metrics.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="one log file a node in node-rank order, or folders of --log_dir; - is stdin",
    )
    metrics.add_argument(
        "--json", action="store_true", help="a JSON object a measured step on stdout, and a summary at the end"
    )
    metrics.add_argument(
        "--pattern", metavar="REGEX", help="a regular expression of yours with named groups (step, loss …)"
    )

    judged = command("diagnose", "say what failed first, where and why, with evidence and remedy")
    judged.add_argument(
        "paths",
        nargs="+",
        metavar="RUN|PATH",
        help="a run's name; or logs of any run: one text file a node in node-rank order, or folders of --log_dir",
    )
    judged.add_argument("--json", action="store_true", help="one JSON object on stdout")

    profiles = command("profiles", "the YAML profiles: list, show, validate")
    verbs = profiles.add_subparsers(dest="verb", metavar="list|show|validate")
    listing = verbs.add_parser("list", help="every profile, and where it comes from")
    listing.add_argument("--json", action="store_true", help="a JSON object a profile on stdout")
    shown = verbs.add_parser("show", help="a profile as Rankdeck understands it, defaults left out")
    shown.add_argument("profile", metavar="PROFILE")
    shown.add_argument("--json", action="store_true", help="JSON, defaults included")
    validate = verbs.add_parser("validate", help="every mistake of these profiles")
    validate.add_argument("profiles", nargs="+", metavar="PROFILE")
    validate.add_argument("--json", action="store_true", help="a JSON object a profile on stdout")

    completion = command(
        "completion", 'print the completion script for a shell: eval "$(rankdeck completion bash)"; in fish, | source'
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))
    return top


def profile(command: argparse.ArgumentParser) -> None:
    command.add_argument("profile", metavar="PROFILE", help="a profile's name or path")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change one key of the profile, for example batch.per_device=8 (repeatable)",
    )


def run(command: argparse.ArgumentParser, optional: bool = False) -> None:
    text = "a run's name or its beginning, or its profile's name"
    if optional:
        command.add_argument("run", nargs="?", default="", metavar="RUN", help=f"{text} (default: the newest)")
    else:
        command.add_argument("run", metavar="RUN", help=text)


def skips(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--skip", action="append", default=[], metavar="CHECK", help="leave out one preflight check, by id (repeatable)"
    )


def collective(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--collective",
        nargs="?",
        type=trial_seconds,
        const=60.0,
        default=0.0,
        metavar="SECONDS",
        help="let all ranks all-reduce for real, started as the job will be, within so many seconds (60)",
    )


def trial_seconds(text: str) -> float:
    """A time limit that leaves torch the time to start."""
    value = float(text)
    if not 10 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 10 and 3600 seconds")
    return value


def output(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--plain",
        action="store_true",
        help="text: each log line with its rank and node (the default without a terminal)",
    )
    group.add_argument("--json", action="store_true", help="the events, a JSON object a line on stdout")


def patience(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lost-after",
        type=seconds,
        default=60.0,
        metavar="S",
        help="seconds that a node may stay unreachable, while another answers, before it is given up (default 60)",
    )


def look(command: argparse.ArgumentParser) -> None:
    command.add_argument("--readonly", action="store_true", help="look only: nothing can be stopped or started")
    command.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    command.add_argument("--theme", metavar="NAME", help="rankdeck-dark, -light or -contrast, ansi-dark or ansi-light")


def seconds(text: str) -> float:
    """A duration for argparse: 0 to a day."""
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("between 0 and 86400 seconds")
    return value
