"""What looks like a failure and is none."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

RULES = (
    Rule(
        id="noise",
        role="advice",
        where=("line",),
        texts=(
            r"hostname of the client socket cannot be retrieved",
            r"Setting OMP_NUM_THREADS environment variable",
            r"destroy_process_group\(\) was not called",
            r"process group has NOT been destroyed",
            r"no error file defined for parent",
            r"FutureWarning",
            r"UserWarning",
            r"DeprecationWarning",
            r"\*{20,}",
            r"={20,}",
            r"-{20,}",
            r"To enable traceback see",
            r"IPv6 network addresses",
            r"\[W\d{4} .{0,40}socket\.cpp",
            r"Exception raised from",
            r"^frame #\d+",
            r"omitting python frames",
            r"waitForInput",
            r"^\s+(?:time|host|rank|exitcode|error_file|traceback|msg)\s*: ",
            r"failed \(exitcode: ",
            r"ChildFailedError",
            r"^Root Cause|^(?:Other )?Failures:|^\S* ?FAILED\s*$|<NO_OTHER_FAILURES>|^\[\d+\]:\s*$",
            r"Sending process \d+ closing signal",
        ),
        says="",
        remedy="",
    ),
)
