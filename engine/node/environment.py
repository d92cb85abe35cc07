"""What a launch finds on this node: its folder, its activation, Python, torch, torchrun and XTuner.

One bash does what the script of a plan does first (`cd`, then the activation), and becomes the interpreter of the
torchrun on its PATH, which looks around without importing torch: that would take seconds. Data reaches bash as
arguments, and the answer comes on a descriptor of its own, whatever the activation prints.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Optional

from engine.node import shell

SECONDS = 20.0
_STAGE = re.compile(r"^(folder|activated)$", re.MULTILINE)

# The arguments go into variables before the activation runs: `source FILE` hands the positional ones on to FILE.
_BASH = r"""
exec 9>&1 1>&2
rankdeck_activate=$2 rankdeck_look=$3 rankdeck_ask=$4
cd "$1" || exit
shift $#
echo folder >&9
eval "$rankdeck_activate" || exit
echo activated >&9
rankdeck_torchrun=$(type -P torchrun)
rankdeck_python= rankdeck_first= rankdeck_second=
if [ -r "$rankdeck_torchrun" ]; then
  { IFS= read -r rankdeck_first; IFS= read -r rankdeck_second; } 2>/dev/null < "$rankdeck_torchrun"
fi
case $rankdeck_first in
'#!'*/env\ *python*) rankdeck_python=$(type -P "${rankdeck_first##* }") ;;
'#!'*/python*) rankdeck_python=${rankdeck_first#'#!'} rankdeck_python=${rankdeck_python%% *} ;;
'#!/bin/sh'*)
  case $rankdeck_second in
  "'''exec' \""*) rankdeck_python=${rankdeck_second#*\"} rankdeck_python=${rankdeck_python%%\"*} ;;
  "'''exec' "*) rankdeck_python=${rankdeck_second#* } rankdeck_python=${rankdeck_python%% *} ;;
  esac ;;
esac
[ -x "$rankdeck_python" ] || rankdeck_python=$(type -P python3 || type -P python) || { echo nopython >&9; exit 0; }
exec "$rankdeck_python" -c "$rankdeck_look" "$rankdeck_torchrun" "$rankdeck_ask" >&9 9>&-
"""

# Runs in the user's interpreter, whatever its version: no imports but the smallest, no names of ours.
_LOOK = r"""
import json, os, re, sys
torchrun, ask = sys.argv[1], json.loads(sys.argv[2])
path = [p for p in sys.path if p]
names = []
for p in path:
    try: names += [(n, p) for n in os.listdir(p) if n.endswith(('.dist-info', '.egg-info'))]
    except OSError: pass
def dist(pattern):
    for n, p in names:
        m = re.match(pattern + r'-([^-]+?)(-py[0-9.]+)?\.(dist|egg)-info$', n, re.I)
        if m: return m.group(1)
    return ''
def spec(name):
    where, found = None, None
    for part in range(name.count('.') + 1):
        full = '.'.join(name.split('.')[:part + 1])
        found = None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            found = find(full, where) if find else None
            if found: break
        if not found: return None
        where = found.submodule_search_locations
        if where is None and full != name: return None
    return found
def folder(name):
    found = spec(name)
    if found and found.submodule_search_locations: return list(found.submodule_search_locations)[0]
    return ''
def text(*parts):
    try:
        with open(os.path.join(*parts), encoding='utf-8', errors='replace') as f: return f.read(1 << 20)
    except (OSError, IOError): return ''
def word(name, source):
    m = re.search(r'^%s\s*(?::[^=\n]+)?=\s*[\'"]([^\'"]+)[\'"]' % name, source, re.M)
    return m.group(1) if m else ''
cwd = sys.path.pop(0) if sys.path and sys.path[0] == '' else None
torch, xtuner = folder('torch'), folder('xtuner')
about = text(torch, 'version.py') if torch else ''
out = {
    'python': sys.executable or '', 'python_version': '.'.join(map(str, sys.version_info[:3])),
    'cwd': os.getcwd(), 'torchrun': torchrun,
    'torch': (word('__version__', about) or dist('torch')) if torch else '',
    'cuda': word('cuda', about), 'torch_git': word('git_version', about), 'torch_folder': torch,
    'nccl': dist(r'nvidia_nccl_cu\d+'),
    'xtuner': (word('__version__', text(xtuner, 'version.py')) or dist('xtuner') or 'unknown') if xtuner else '',
    'torchrun_flags': sorted(set(re.findall(r'[\'"](--[a-z][a-z0-9_-]*)[\'"]',
                                            text(torch, 'distributed', 'run.py')))) if torch else [],
}
if cwd is not None: sys.path.insert(0, os.getcwd())
if ask.get('module'):
    if ask.get('agent') and ask['module'].split('.')[:2] == ['engine', 'train']: sys.path.insert(0, ask['agent'])
    try:
        found = spec(ask['module'])
        if found and found.submodule_search_locations is not None: found = spec(ask['module'] + '.__main__')
        out['module'] = (found.origin or '') if found else ''
    except Exception as e: out['module_error'] = '%s: %s' % (type(e).__name__, e)
try:
    import resource
    for key, number in (('nofile', resource.RLIMIT_NOFILE), ('memlock', resource.RLIMIT_MEMLOCK)):
        out[key] = resource.getrlimit(number)[0]
except Exception: pass
out['env'] = dict(os.environ)
sys.stdout.write(json.dumps(out) + '\n')
"""


class Visit:
    """A look from inside the launch's environment; it begins at once, and `answer` waits for its end.

    `env` is filled by `answer` with the variables that the activation leaves behind (the process's own before).
    """

    def __init__(
        self, workdir: str, activate: str, module: str = "", seconds: float = SECONDS, agent: str = ""
    ) -> None:
        """`agent` is our own program, which holds the training program that a run may ask for."""
        self.workdir = os.path.expanduser(workdir or "~")
        self.env: Dict[str, str] = dict(os.environ)
        self.cwd = self.workdir
        self.module: Optional[str] = None
        self.module_error = ""
        self._seconds = seconds
        ask = json.dumps({"module": module, "agent": agent})
        argv = ["bash", "-c", _BASH, "bash", _as_operand(self.workdir), activate, _LOOK, ask]
        self._command = shell.Command(argv, seconds)

    def answer(self) -> Dict[str, Any]:
        """{workdir, workdir_ok, activated, code, output, seconds, …} and, once activated, all that `_LOOK` prints.

        `code` is the exit status of what failed (None: it ran out of time) and `output` the end of what it printed.
        """
        result = self._command.finish()
        stages = _STAGE.findall(result.out)
        answer: Dict[str, Any] = {
            "workdir": self.workdir,
            "workdir_ok": "folder" in stages,
            "activated": "activated" in stages,
            "seconds": round(result.seconds, 3),
            "code": result.code,
            "timed_out": result.code is None,
            "output": result.err[-4000:],
        }
        if not answer["activated"]:
            return answer
        import shutil

        lines = [line for line in result.out.splitlines() if line.startswith("{")]
        try:
            found = dict(json.loads(lines[-1]))
        except (IndexError, ValueError):
            answer["error"] = _no_answer(result)
            return answer
        self.env = {str(name): str(value) for name, value in found.pop("env").items()}
        self.cwd = str(found["cwd"])
        self.module = found.pop("module", None)
        self.module_error = found.pop("module_error", "")
        answer["set"] = {name: value[:400] for name, value in self.env.items() if _telling(name)}
        answer.update(found)
        answer["xtuner_command"] = shutil.which("xtuner", path=self.env.get("PATH")) or ""
        return answer


def _as_operand(path: str) -> str:
    """A path that `cd` takes neither for an option, nor for "the folder before", nor looks up in CDPATH."""
    return path if path.startswith(("/", "./", "../")) else "./" + path


def _telling(name: str) -> bool:
    return name in ("CUDA_VISIBLE_DEVICES", "VIRTUAL_ENV", "CONDA_PREFIX", "OMP_NUM_THREADS") or name.startswith(
        ("NCCL_", "GLOO_")
    )


def _no_answer(result: shell.Result) -> str:
    if "nopython" in result.out.split():
        return "no python3 and no python on the PATH"
    if result.code is None:
        return "python did not answer in time"
    tail: List[str] = result.err.strip().splitlines()[-1:]
    return "python ended with exit status %d: %s" % (result.code, "".join(tail)[-400:])
