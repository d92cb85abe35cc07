"""Leaving the login session, and starting the one child whose life is tied to this process."""

from __future__ import annotations

import os
import signal
from typing import Dict, List, NoReturn, Optional

from engine.node import proc

LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
SHELLS = ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh")


def daemonise() -> None:
    """Go on in a grandchild with no terminal and a session of its own; the callers' process ends with status 0."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def silence() -> None:
    """Put /dev/null in the place of descriptors 0, 1 and 2: whoever waits on the other end is released."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def shell() -> str:
    """The first shell of SHELLS that this machine has; FileNotFoundError if it has none."""
    for path in SHELLS:
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("neither bash nor sh is on this machine")


def start(script: str, env: Dict[str, str], log: int, cwd: str, umask: int, errors: Optional[int] = None) -> int:
    """Run `script` in a shell with its own session; its pid, OSError if it cannot.

    Both outputs go to descriptor `log`, unless stderr has its own in `errors`.

    The child gets SIGTERM when this process dies. That request is bound to the thread that forks (prctl(2)): call this
    from the main thread.
    """
    argv = [shell(), "-c", script]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    told, tell = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become(argv, env, null, log, cwd, umask, parent, tell, log if errors is None else errors)
    os.close(tell)
    os.close(null)
    with os.fdopen(told, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number), argv[0])
    return pid


def _become(
    argv: List[str], env: Dict[str, str], null: int, log: int, cwd: str, umask: int, parent: int, tell: int, errors: int
) -> NoReturn:
    try:
        for number in range(1, signal.NSIG):
            # Python ignores some signals, nohup others, and neither is for the program to inherit.
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        proc.control(proc.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        os.umask(umask)
        os.chdir(cwd)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(errors, 2)
        os.execve(argv[0], argv, env)
    except OSError as error:
        os.write(tell, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)
