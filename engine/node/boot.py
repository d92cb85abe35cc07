"""First code of ours on a node: it arrives on stdin, finds or receives the program (one zip), and becomes `serve`.

The command that runs it is constant; everything that varies comes as one JSON line on stdin after this source:
{"nonce", "sha", "size", "state"}; `began` is when this Python began. Every line that it prints begins with the nonce,
so whatever rc files print is told apart. It parses on any python3, so that one that is too old can say so.
"""

import importlib
import json
import os
import sys
import time

HEADER = json.loads(sys.stdin.buffer.readline().decode("utf-8"))


def say(**fields: object) -> None:
    sys.stdout.buffer.write((HEADER["nonce"] + json.dumps(fields) + "\n").encode("utf-8"))
    sys.stdout.buffer.flush()


def shell_seconds() -> float:
    """What the shell took to become Python: its start-up files. 0 where that is not known."""
    try:
        with open("/proc/self/stat") as stat, open("/proc/uptime") as up:
            # Becoming another program changes neither the process nor when it began.
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            age = float(up.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, age - (time.time() - float(globals()["began"])))
    except (OSError, ValueError, IndexError, KeyError):
        return 0.0


def state_root() -> str:
    """Where our files live on this node; see the README, "What is on a node"."""
    asked = HEADER.get("state") or os.environ.get("RANKDECK_STATE") or ""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return os.path.expanduser(asked or os.path.join(base, "rankdeck"))


def sha256(data: bytes) -> str:
    """In hexadecimal; by Python's own code where it has some, since hashlib loads OpenSSL: 4 MB of a node's memory."""
    for name in ("_sha2", "_sha256"):
        try:
            return str(importlib.import_module(name).sha256(data).hexdigest())
        except ImportError:
            pass
    return str(importlib.import_module("hashlib").sha256(data).hexdigest())


def holds(path: str) -> bool:
    """Is `path` the program that the client means, byte for byte?"""
    try:
        with open(path, "rb") as file:
            return sha256(file.read()) == str(HEADER["sha"])
    except OSError:
        return False


def whole(path: str) -> bool:
    """Is `path` a program with its bytecode, as `engine.node.bytecode` has written it?"""
    try:
        with open(path, "rb") as file:
            said, rest = file.read(8), file.read()
        return bool(rest) and said == b"%08x" % importlib.import_module("zlib").crc32(rest)
    except (OSError, ImportError):
        return False


def program(folder: str) -> str:
    """The path of the program, with bytecode where this node has made it: it does so once for each of its Pythons."""
    source = os.path.join(folder, HEADER["sha"][:16] + ".zip")
    compiled = "%s.%s.zip" % (source[:-4], sys.implementation.cache_tag)
    if whole(compiled):
        return compiled
    receive(source)
    sys.path.insert(0, source)
    try:
        importlib.import_module("engine.node.bytecode").add(source, compiled)
    except (OSError, ImportError):  # no room for it, or a Python without zlib
        return source
    return compiled


def receive(path: str) -> None:
    """Take the program from the client, when this node has not got it."""
    if not holds(path):
        say(need=True)
        data = sys.stdin.buffer.read(HEADER["size"])
        if sha256(data) != HEADER["sha"]:
            raise OSError(5, "the program arrived damaged", path)
        beside = path + ".%d" % os.getpid()
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, path)
        except OSError:
            if os.path.exists(beside):
                os.unlink(beside)
            raise


def user() -> str:
    """Whose account this is: by the password database, as for ssh; what the environment says may be another's."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def boot() -> None:
    shell = shell_seconds()
    if sys.version_info < (3, 8):
        say(error="python", text="%s is Python %d.%d" % (sys.executable, sys.version_info[0], sys.version_info[1]))
        return
    os.umask(0o077)
    root = state_root()
    folder = os.path.join(root, "agent")
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        about = os.stat(folder)
        if about.st_uid != os.getuid() or about.st_mode & 0o022:
            say(error="unsafe", path=folder, text="%s belongs to somebody else, or others may write to it" % folder)
            return
        path = program(folder)
    except OSError as error:
        say(error="state", path=root, errno=error.errno, text=error.strerror or str(error), user=user())
        return
    sys.path.insert(0, path)
    from engine.node import serve

    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    say(
        ok=True,
        protocol=serve.PROTOCOL,
        host=os.uname().nodename,
        python="%d.%d.%d" % sys.version_info[:3],
        state=root,
        user=user(),
        boot=boot_id,
        t=time.time(),
        shell=shell,
    )
    serve.main(root, path)


boot()
