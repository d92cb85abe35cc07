"""What is known without a text: by a signal, an exit code, or by the silence of a rank. No pattern leads here."""

from __future__ import annotations

import signal as signals

from engine.diagnosis.rules.rule import Role, Rule


def _end(id: str, says: str, remedy: str, sure: float, weight: int = 95, role: Role = "root") -> Rule:
    return Rule(id=id, role=role, texts=(), where=(), says=says, remedy=remedy, sure=sure, weight=weight)


EXCEPTION = _end("exception", "raised {exc}", "read the traceback: {see}; the program has to be corrected there", 0.9)
EXIT = _end(
    "exit-code",
    "exited with code {code} and no traceback[; its last words: {last}]",
    "read what it wrote last: {see}; sys.exit or os._exit in the program, or a library that gives up, does that",
    0.7,
)
VANISHED = _end("ended-silently", "ended, and nobody saw how", "read what it wrote last: {see}", 0.4, 50)
STOPPED = _end(
    "stopped",
    "was ended by its own torchrun, after another rank had failed",
    "look at the rank that failed before",
    0.3,
    5,
    "victim",
)
NODE_LOST = _end(
    "node-lost",
    "{text}",
    "is the node up? ssh {host} uptime; what still runs there: rankdeck reap PROFILE",
    0.9,
    70,
)
TORCHRUN_KILLED = _end(
    "torchrun-killed",
    "was killed by {signal}",
    "torchrun itself was killed, by somebody or by the kernel (out of memory): ssh {host} dmesg",
    0.85,
)
OTHER_SIGNAL = _end("killed-by-signal", "was killed by {signal}", "read what it wrote last: {see}", 0.7)

BY_SIGNAL = {
    signals.SIGKILL: _end(
        "killed",
        "was killed by SIGKILL (signal 9), from outside: by the kernel for want of memory, a scheduler or a person",
        "see whether the kernel did: ssh {host} 'dmesg | grep -i oom'; Slurm: sacct -j JOB -o State; then more memory, "
        "or fewer DataLoader workers",
        0.75,
    ),
    signals.SIGSEGV: _end(
        "segfault",
        "was killed by SIGSEGV (segmentation fault)",
        "python -X faulthandler shows where; a C++ extension built for another torch or CUDA is the usual reason: "
        "reinstall it there",
        0.85,
    ),
    signals.SIGABRT: _end(
        "aborted",
        "was killed by SIGABRT: the program or a C++ library aborted",
        "read the lines above the end: {see}",
        0.8,
    ),
    signals.SIGBUS: _end(
        "bus-error",
        "was killed by SIGBUS (bus error): most often /dev/shm or a file system is full",
        "see what is full: ssh {host} df -h /dev/shm; give the container more shared memory (--shm-size)",
        0.75,
    ),
    signals.SIGILL: _end(
        "illegal-instruction",
        "was killed by SIGILL (illegal instruction): a program built for another processor",
        "install packages built for the CPU of that node: ssh {host} lscpu",
        0.85,
    ),
    signals.SIGFPE: _end(
        "arithmetic", "was killed by SIGFPE (integer division by zero in C++)", "read where: {see}", 0.85
    ),
}
KNOWN_CODES = {
    126: "cannot be executed",
    127: "command not found",
    130: "interrupted",
    134: "aborted (128 + SIGABRT)",
    137: "killed (128 + SIGKILL)",
    139: "segmentation fault (128 + SIGSEGV)",
    143: "terminated (128 + SIGTERM)",
}

PYSPY = "its stack, where py-spy is installed: ssh {host} py-spy dump --pid PID"
SILENT = _end(
    "silent-rank",
    "wrote no reason while others lost their connection to it: it was killed, left by os._exit, or went down with its "
    "torchrun or node",
    "see what the kernel did: ssh {host} dmesg; whether it still runs: ssh {host} ps -ef; " + PYSPY,
    0.55,
    50,
)
LEFT_EARLY = _end(
    "finished-early",
    "ended with exit code 0 while the others still trained, who lost their connection to it",
    "did it get fewer batches (uneven data: DistributedSampler, drop_last, model.join()), fewer steps, or a collective "
    "only the others call? sys.exit(0) or os._exit(0) in the program does it too: {see}",
    0.75,
    50,
)
HANG = _end(
    "hang",
    "hung: it did not come to the collective at which the others waited until they gave up",
    PYSPY
    + "; look at its last lines: {see}; if it does long work there (data, evaluation, saving), raise the timeout of "
    "init_process_group",
    0.7,
    52,
)
APART = _end(
    "network-lost",
    "and every other rank waited in vain for each other: the network between the nodes went away, or all of them "
    "waited for something outside",
    "test it between the nodes: ping, iperf3; see the link: ssh {host} ip -s link; dmesg says when a link went down",
    0.5,
    31,
    "victim",
)
UNKNOWN = _end(
    "unknown",
    "",
    'launch again with `env: {TORCH_DISTRIBUTED_DEBUG: DETAIL, NCCL_DEBUG: INFO, PYTHONFAULTHANDLER: "1"}`',
    0.2,
)

ENDS = (EXCEPTION, EXIT, VANISHED, STOPPED, NODE_LOST, TORCHRUN_KILLED, OTHER_SIGNAL, *BY_SIGNAL.values())
ENDS += (SILENT, LEFT_EARLY, HANG, APART, UNKNOWN)
