"""Answer one client over stdin and stdout: probe, sample, launch, follow, stop, sweep, and Slurm's commands.

Both ways one JSON object a line. A request is {"id": N, "do": VERB, …}; its answer {"id": N, "ok": {…}} or
{"id": N, "error": CODE, "text": …}. A follow sends, under the id of its request, any number of
{"id": N, "s": STREAM, "o": OFFSET, "n": LENGTH[, "reset": true]} each followed by LENGTH raw bytes,
{"id": N, "alive": BOOL} when the supervisor's lock changes, and {"id": N, "drained": STREAMS} when all is read.

Rules: the loop never blocks (verbs that take time run in threads, output is queued and files are not read while the
queue is full), nothing here outlives the client but the supervisor, and paths come only from checked names.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import re
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Optional

from engine.node import tail

if TYPE_CHECKING:
    from engine.node.mesh import Listener
    from engine.node.sample import Sampler
    from engine.node.slurm import Slurm

PROTOCOL = 1
RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
QUEUE_LIMIT = 1 << 20
REQUEST_LIMIT = 16 << 20
POLL_BUSY, POLL_IDLE = 0.02, 0.05
LOOK_EVERY = 0.25
AT_ONCE = ("ping", "watch", "settle")
"""Verbs that never block; the others run in a thread each."""
SILENCE_LIMIT = 120.0
"""Seconds without a word from the client (it pings every 15) after which this process ends by itself."""

Json = Dict[str, Any]


class Refused(Exception):
    """The request cannot be done; `code` is stable, the text is for a human."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Serve:
    def __init__(self, state: str, program: str) -> None:
        self.state = state
        self.program = program
        self.follows: Dict[int, tail.Follow] = {}
        self._listener: Optional["Listener"] = None
        self._sampler: Optional["Sampler"] = None
        self._slurm: Optional["Slurm"] = None
        self._verbs: Dict[str, Callable[[Json], Json]] = {
            "ping": self._ping,
            "watch": self._watch,
            "probe": self._probe,
            "listen": self._listen,
            "call": self._call,
            "pour": self._pour,
            "hush": self._hush,
            "sample": self._sample,
            "settle": self._settle,
            "slurm": self._ask_slurm,
            "launch": self._launch,
            "trial": self._trial,
            "stop": self._stop,
            "sweep": self._sweep,
        }
        self._out: Deque[memoryview] = collections.deque()
        self._queued = 0
        self._lock = threading.Lock()
        self._wake_r, self._wake_w = os.pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    # ---- the loop -------------------------------------------------------------------------------------------------

    def run(self, stdin: int, stdout: int) -> None:
        """Serve until the client closes stdin."""
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)
        inbox = bytearray()
        heard = time.monotonic()
        looked = 0.0
        wait = POLL_BUSY
        while True:
            full = self._queued >= QUEUE_LIMIT
            timeout = 5.0 if full or not self.follows else wait
            readable, _, _ = select.select([stdin, self._wake_r], [stdout] if self._out else [], [], timeout)
            now = time.monotonic()
            if self._wake_r in readable:
                os.read(self._wake_r, 4096)
            if stdin in readable:
                data = os.read(stdin, 1 << 16)
                if not data:
                    return
                heard = now
                self._take(inbox, data)
            elif now - heard > SILENCE_LIMIT:
                return
            if not full:
                look = now - looked >= LOOK_EVERY
                looked = now if look else looked
                moved = self._follow(look)
                wait = 0.0 if moved == tail.CHUNK else POLL_BUSY if moved else min(POLL_IDLE, wait + 0.005)
            self._flush(stdout)

    def _take(self, inbox: bytearray, data: bytes) -> None:
        inbox += data
        while True:
            end = inbox.find(b"\n")
            if end < 0:
                if len(inbox) > REQUEST_LIMIT:
                    raise SystemExit("request too long")
                return
            line = bytes(inbox[:end])
            del inbox[: end + 1]
            self._request(json.loads(line))

    def _follow(self, look: bool) -> int:
        moved = 0
        for number, follow in self.follows.items():
            if follow.drained:
                continue
            chunks, alive = follow.step(look)
            for name, offset, data, reset in chunks:
                head: Json = {"id": number, "s": name, "o": offset, "n": len(data)}
                if reset:
                    head["reset"] = True
                self._send(head, data)
                moved = max(moved, len(data))
            if alive is not None:
                self._send({"id": number, "alive": alive})
            if follow.drained:
                self._send({"id": number, "drained": len(follow.streams)})
        return moved

    def _send(self, head: Json, data: bytes = b"") -> None:
        line = json.dumps(head, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._out.append(memoryview(line))
            if data:
                self._out.append(memoryview(data))
            self._queued += len(line) + len(data)

    def _flush(self, stdout: int) -> None:
        while self._out:
            with self._lock:
                first = self._out[0]
            try:
                written = os.write(stdout, first)
            except BlockingIOError:
                return
            with self._lock:
                self._queued -= written
                if written == len(first):
                    self._out.popleft()
                else:
                    self._out[0] = first[written:]

    # ---- requests -------------------------------------------------------------------------------------------------

    def _request(self, request: Json) -> None:
        number, verb = int(request["id"]), str(request["do"])
        work = self._verbs.get(verb)
        if work is None:
            self._send({"id": number, "error": "verb", "text": "this node's program does not know %r" % verb})
        elif verb in AT_ONCE:
            self._answer(number, work, request)
        else:
            threading.Thread(target=self._answer, args=(number, work, request), daemon=True).start()

    def _answer(self, number: int, work: Callable[[Json], Json], request: Json) -> None:
        try:
            answer: Json = {"id": number, "ok": work(request)}
        except Refused as refused:
            answer = {"id": number, "error": refused.code, "text": str(refused)}
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "os")
            text = "%s: %s" % (error.filename or self.state, error.strerror or error)
            answer = {"id": number, "error": code, "text": text}
        except Exception as error:  # a fault of ours on one verb must not end the conversation
            answer = {"id": number, "error": "fault", "text": "%s: %s" % (type(error).__name__, error)}
        self._send(answer)
        try:
            os.write(self._wake_w, b".")
        except BlockingIOError:
            pass

    def _run_dir(self, request: Json) -> str:
        run, node_rank = str(request["run"]), int(request["node_rank"])
        if not RUN.fullmatch(run) or not 0 <= node_rank < 1000000:
            raise Refused("name", "not the name of a run: %r" % run)
        return os.path.join(self.state, "runs", run, "n%d" % node_rank)

    def _ping(self, request: Json) -> Json:
        return {"t": time.time()}

    def _watch(self, request: Json) -> Json:
        """Follow streams of a run, {NAME: [OFFSET, CRC]}; with "sub" they are added to that follow."""
        from engine.node import sweep

        run_dir = self._run_dir(request)
        number = int(request["sub"] if "sub" in request else request["id"])
        follow = self.follows.get(number)
        if follow is None and request.get("batch"):
            # Somewhere else, and perhaps later: not our locks but the client says when no more is to come ("settle").
            follow = self.follows[number] = tail.Follow(run_dir, lambda: True, bool(request.get("once")))
        if follow is None:
            if not os.path.isdir(run_dir):
                raise Refused("no-run", "%s has no folder of this run: %s" % (os.uname().nodename, run_dir))
            once = bool(request.get("once"))
            follow = self.follows[number] = tail.Follow(run_dir, lambda: sweep.alive(run_dir), once)
        for name, (offset, crc) in request["streams"].items():
            follow.add(str(name), int(offset), int(crc))
        return {}

    def _settle(self, request: Json) -> Json:
        """What the follow "sub" reads from is over: read it to its end."""
        follow = self.follows.get(int(request["sub"]))
        if follow is not None:
            follow.settle()
        return {}

    def _ask_slurm(self, request: Json) -> Json:
        """Submit, look at, cancel or test a Slurm job, or describe the cluster; `engine.node.slurm`."""
        from engine.node import slurm

        self._slurm = self._slurm or slurm.Slurm(self.program)
        work, what = self._slurm, str(request["ask"])
        try:
            if what == "look":
                said = work.look([str(job) for job in request["jobs"]])
                inside = "run" in request and os.path.dirname(self._run_dir(dict(request, node_rank=0)))
                return dict(said, ended=work.ended(inside)) if inside else said
            if what == "test":
                return work.test(str(request["script"]))
            if what == "cluster":
                return work.cluster()
            if what == "sample":
                return work.sample(str(request["job"]), [int(nodes) for nodes in request["parts"]])
            runs = os.path.join(self.state, "runs")
            if what == "named":
                return work.named(runs, str(request["job"]))
            if what == "adopt":
                return work.adopt(runs, str(request["job"]))
            folder = os.path.dirname(self._run_dir(dict(request, node_rank=0)))
            if what == "submit":
                texts = {"script": str(request["script"]), "record": str(request["record"])}
                return work.submit(folder, texts, request["job"], request["secrets"])
            if what == "find":
                return work.find(folder)
            if what == "cancel":
                return work.cancel(folder, str(request["job"]), float(request["seconds"]))
        except slurm.Failed as failed:
            raise Refused(failed.code, str(failed)) from None
        raise Refused("verb", "this node's program does not know how to %r" % what)

    def _probe(self, request: Json) -> Json:
        from engine.node import probe

        answer: Json = probe.probe(dict(request["ask"], state=self.state, agent=self.program))
        return answer

    def _sample(self, request: Json) -> Json:
        if self._sampler is None:
            from engine.node import sample

            self._sampler = sample.Sampler()
        return self._sampler.take()

    def _listen(self, request: Json) -> Json:
        """Listen for the calls of other nodes (`engine.node.mesh`), instead of a listener that is there."""
        from engine.node import mesh

        self._hush(request)
        count, sink = int(request["count"]), bool(request.get("sink"))
        found = mesh.Listener(request["nonce"], str(request["address"]), count, request.get("also"), sink)
        self._listener = found
        return {"ports": found.ports, "also": found.also}

    def _call(self, request: Json) -> Json:
        """Call the listeners of other nodes; targets are [key, address, port]."""
        from engine.node import mesh

        targets = [mesh.Target(key, str(address), int(port)) for key, address, port in request["targets"]]
        return {"answers": mesh.call(request["nonce"], targets, str(request["source"]), float(request["seconds"]))}

    def _pour(self, request: Json) -> Json:
        """Measure the way to the sink of another node; the target is [key, address, port]."""
        from engine.node import mesh, pour

        key, address, port = request["target"]
        seconds = min(2.0, float(request["seconds"]))
        return pour.pour(request["nonce"], mesh.Target(key, str(address), int(port)), str(request["source"]), seconds)

    def _hush(self, request: Json) -> Json:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        return {}

    def _launch(self, request: Json) -> Json:
        """Make the run folder and start its supervisor. A second launch of the same job is answered, not started."""
        import subprocess

        run_dir = self._run_dir(request)
        job = json.dumps(request["job"])
        os.makedirs(os.path.dirname(run_dir), 0o700, exist_ok=True)
        try:
            os.mkdir(run_dir, 0o700)
        except FileExistsError:
            with open(os.path.join(run_dir, "job.json"), encoding="utf-8") as stored:
                if stored.read() == job:
                    return {"again": True}
            raise Refused("exists", "%s is there already, for another job" % run_dir) from None
        written = False
        try:
            fd = os.open(os.path.join(run_dir, "job.json"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(job)
            written = True
        finally:
            if not written:
                remove_tree(run_dir)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", self.program, "supervise", run_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=dict(os.environ, RANKDECK_JOB="%s/n%d" % (request["run"], int(request["node_rank"]))),
        )
        line, trouble = process.communicate(json.dumps({"secrets": request.get("secrets", {})}).encode() + b"\n", 30)
        try:
            answer: Json = json.loads(line)
        except ValueError:
            text = trouble[-2000:].decode("utf-8", "replace")
            raise Refused("supervisor", "the supervisor did not start: %s" % text) from None
        if "error" in answer:
            raise Refused(str(answer["error"]), str(answer.get("text", "")))
        return answer

    def _trial(self, request: Json) -> Json:
        """Launch, wait for the end, answer with what the ranks said, and leave nothing of it. "stop" cuts it short."""
        from engine.node import trial

        self._launch(request)
        return trial.attend(self._run_dir(request), float(request["seconds"]), lambda: self._stop(request))

    def _stop(self, request: Json) -> Json:
        """Ask the supervisor to stop, wait until its lock is free, then sweep; the answer says what is left."""
        from engine.node import sweep

        run_dir, grace = self._run_dir(request), float(request["grace"])
        if not os.path.isdir(run_dir):
            return {"known": False, "killed": 0, "left": []}
        alive = sweep.alive(run_dir)
        if alive:
            beside = os.path.join(run_dir, ".stop.%d.%d" % (os.getpid(), threading.get_ident()))
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with open(fd, "w", encoding="utf-8") as file:
                    json.dump({"grace": grace, "reason": str(request.get("reason", ""))}, file)
            except OSError:
                pass  # a full disk: a request that cannot be read stops the job too
            os.rename(beside, os.path.join(run_dir, "stop.json"))
            deadline = time.monotonic() + grace + 20
            while alive and time.monotonic() < deadline:
                time.sleep(0.05)
                alive = sweep.alive(run_dir)
        job = "%s/n%d" % (request["run"], int(request["node_rank"]))
        result = sweep.kill(sweep.find(self.state, {job}), 2.0)
        return dict(result, known=True, alive=alive)

    def _sweep(self, request: Json) -> Json:
        """Processes of our runs on this node; with "kill", those whose supervisor is dead are removed."""
        from engine.node import sweep

        found = sweep.find(self.state)
        jobs = {process["job"] for process in found}
        living = {job for job in jobs if sweep.alive(os.path.join(self.state, "runs", job))}
        orphans = [process for process in found if process["job"] not in living]
        answer: Json = {"found": found, "living": sorted(living), "killed": 0, "left": []}
        if request.get("kill"):
            answer.update(sweep.kill(orphans, float(request.get("grace", 2.0))))
        return answer


def remove_tree(path: str) -> None:
    """Best effort: what a failed launch made must not look like a run."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def main(state: str, program: str) -> None:
    """Serve the client on stdin and stdout; `program` is the zip that this code came from."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    # A bash below SHLVL 2 that sees SSH_CLIENT takes itself for a login of sshd and reads .bashrc, which has been read.
    os.environ["SHLVL"] = "1"
    Serve(state, program).run(0, 1)
