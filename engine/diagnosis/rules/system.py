"""The machine, its kernel, its scheduler, and ssh."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

RULES = (
    Rule(
        id="memlock",
        where=("raised", "line"),
        texts=(
            r"Call to ibv_(?:create|reg|alloc)\w* failed(?: with error (?:Cannot allocate memory|Invalid argument)|$)",
            r"ibv_\w{1,40}.{0,60}Cannot allocate memory",
            r"max locked memory",
            r"RLIMIT_MEMLOCK",
            r"memlock",
        ),
        says="could not lock memory for InfiniBand: the memlock limit is too low",
        remedy=(
            "ulimit -l unlimited for the login that launches (ssh {host} ulimit -l): limits.conf, sshd's or "
            "slurmd's systemd unit"
        ),
        sure=0.85,
        weight=90,
    ),
    Rule(
        id="shared-memory",
        where=("raised", "line"),
        texts=(
            r"(?:[Ee]rror while creating shared memory segment|posix_fallocate failed).{0,160}",
            r"/dev/shm.{0,200}(?:No space left|size \d+)",
            r"[Bb]us error.{0,120}(?:shared memory|shm)",
            r"insufficient shared memory",
            r"unable to (?:open|write to) shared memory",
            r"unable to write to file </torch_",
            r"unable to mmap \d+ bytes",
        ),
        says="ran out of shared memory: /dev/shm is too small",
        remedy=(
            "give the container more (docker run --shm-size=16g, or --ipc=host); see it: ssh {host} df -h "
            "/dev/shm; fewer DataLoader workers need less"
        ),
        sure=0.92,
    ),
    Rule(
        id="host-out-of-memory",
        where=("node", "line"),
        texts=(
            r"[Oo]ut of memory: Kill(?:ed)? process (?P<pid>\d+)(?: \((?P<name>[^)]+)\))?",
            r"[Mm]emory cgroup out of memory",
            r"oom-kill:",
            r"[Dd]etected \d+ oom[-_]kill event",
            r"invoked oom-killer",
            r"oom_kill (?P<count>[1-9]\d*)\b",
            r"OUT_OF_MEMORY",
            r"\bOOM[- ]?[Kk]illed\b",
            r"task \d+: Out Of Memory",
            r"[Ee]xceeded (?:step|job) memory limit",
        ),
        says="was killed by the kernel: out of host memory[ (pid {pid} {name})]",
        remedy=(
            "give the job more memory (Slurm --mem, the container's limit), or use less: fewer DataLoader "
            "workers, a smaller cache, no full copy of the checkpoint in each rank"
        ),
        sure=0.95,
    ),
    Rule(
        id="cpu-out-of-memory",
        texts=(
            (
                r"DefaultCPUAllocator: (?:can't|not enough) (?:allocate )?memory(?:: you tried to allocate "
                r"(?P<asked>\d+ bytes))?"
            ),
            r"(?<![A-Za-z])MemoryError",
            r"std::bad_alloc",
            r"Cannot allocate memory",
            r"Unable to allocate (?P<asked>[\d.]+ \w+)",
        ),
        says="ran out of host memory[: it asked for {asked}]",
        remedy=(
            "see what is free: ssh {host} free -g; a smaller batch or fewer DataLoader workers, memory mapping "
            "instead of loading, or a higher limit (Slurm --mem, cgroup)"
        ),
        sure=0.93,
    ),
    Rule(
        id="disk-full",
        where=("raised", "line"),
        texts=(
            r"No space left on device",
            r"\[Errno (?:28|122)\]",
            r"ENOSPC",
            r"[Dd]isk quota exceeded",
            r"PytorchStreamWriter failed writing",
            r"unexpected pos \d+ vs \d+",
            r"basic_ios::clear: iostream error",
            r"file write failed",
            r"[Ff]ailed writing (?:to )?file",
            r"not enough (?:free )?disk space",
        ),
        also=r"iostream error|unexpected pos|No space left",
        says="could not write: the disk is full or over its quota[ ({path})]: {detail}",
        remedy=(
            "make room or write elsewhere: ssh {host} df -h; a checkpoint that was being written is damaged: "
            "resume from the one before"
        ),
        sure=0.85,
    ),
    Rule(
        id="read-only-disk",
        where=("raised", "line"),
        texts=(
            r"\[Errno 30\]",
            r"Read-only file system",
        ),
        says="cannot write: the file system is read-only: {detail}",
        remedy=(
            "write to another folder (program.args, `workdir`); a disk that turned read-only has errors: ssh "
            "{host} dmesg"
        ),
    ),
    Rule(
        id="disk-error",
        where=("raised", "line"),
        texts=(
            r"\[Errno (?:5|116|121|107)\]",
            r"Input/output error",
            r"Stale (?:NFS )?file handle",
            r"Remote I/O error",
            r"Transport endpoint is not connected",
        ),
        says="cannot read or write its file system: {detail}",
        remedy=("the (network) file system of that node is in trouble: ssh {host} 'df; dmesg | tail'; mount it again"),
    ),
    Rule(
        id="permission",
        texts=(
            r"PermissionError: \[Errno (?:1|13)\] [^:]{1,60}(?:: ?'?(?P<path>[^'\n]{1,200}))?",
            r"\bPermission denied(?:: ?'?(?P<path>[^'\n]{1,200}))?",
            r"EACCES",
        ),
        says="has no permission[ for {path}]",
        remedy="see who may: ssh {host} ls -ld {path}; the login of the profile has to own what the program writes",
        sure=0.93,
    ),
    Rule(
        id="too-many-files",
        texts=(
            r"Too many open files",
            r"\[Errno 24\]",
            r"received 0 items of ancdata",
        ),
        says="opened more files than its limit allows",
        remedy=("ulimit -n 65536 in `program.activate`, or torch.multiprocessing.set_sharing_strategy('file_system')"),
        sure=0.93,
    ),
    Rule(
        id="too-many-processes",
        where=("raised", "line"),
        texts=(
            r"OMP: (?:System error #11|Error #34).{0,120}",
            r"can't start new thread",
            r"Resource temporarily unavailable",
            r"pthread_create failed",
            r"\[Errno 11\]",
            r"fork: retry",
        ),
        says="may not start more threads or processes",
        remedy=(
            'ulimit -u, the container\'s pids limit; `env: {OMP_NUM_THREADS: "1"}` and fewer DataLoader workers '
            "need fewer"
        ),
        sure=0.88,
    ),
    Rule(
        id="slurm-time-limit",
        where=("node",),
        texts=(
            r"DUE TO TIME LIMIT",
            r"\bTIMEOUT\b.{0,40}(?:job|step)",
            r"CANCELLED.{0,60}TIME LIMIT",
        ),
        says="was ended by Slurm: the time limit of the job is over",
        remedy="ask for more (`slurm.time`, sbatch --time), or save checkpoints and resume",
        sure=0.97,
    ),
    Rule(
        id="slurm-preempted",
        where=("node",),
        texts=(
            r"DUE TO (?:PREEMPTION|JOB REQUEUE)",
            r"\bPREEMPTED\b",
        ),
        says="was taken off by Slurm for a job of higher priority",
        remedy="submit again with --requeue, and resume from the last checkpoint",
        sure=0.95,
    ),
    Rule(
        id="slurm-node-failed",
        where=("node",),
        texts=(
            r"DUE TO NODE (?:FAILURE|(?P<node>\S+) FAILURE)",
            r"\bNODE_FAIL\b",
            r"Node failure on (?P<node>\S+)",
            r"NODE FAILURE",
        ),
        says="lost a node[ {node}], says Slurm",
        remedy="sinfo -R says why; leave the node out (--exclude) and submit again",
        sure=0.95,
    ),
    Rule(
        id="slurm-refused",
        where=("node",),
        texts=(
            (
                r"(?:sbatch|srun|salloc): (?:error|fatal): (?P<what>.{0,120}(?:Requested node configuration|"
                r"More processors requested|CPU count per node|[Ii]nvalid (?:generic|partition|account|qos|"
                r"feature|constraint)|"
                r"Invalid job|Timed out waiting for job step|configuration source|"
                r"[Uu]nable to (?:create|allocate|contact)|Batch job submission failed|fetch_config|[Nn]ode count|"
                r"Memory specification|temporarily unable|Unable to (?:create|confirm)).{0,160})"
            ),
            r"slurm_load_jobs error: (?P<what>.{1,80})",
        ),
        says="was refused by Slurm: {what}",
        remedy=(
            "correct `slurm:` in the profile (partition, account, nodes, gpus_per_node): sinfo and scontrol "
            "show partition say what there is"
        ),
        sure=0.95,
    ),
    Rule(
        id="slurm-cancelled",
        where=("node",),
        texts=(
            r"(?:slurmstepd|srun).{0,80}\*\*\* (?:STEP|JOB) \S+ (?:ON \S+ )?CANCELLED AT",
            r"Job \d+ (?:has been )?cancelled",
        ),
        says="was cancelled in Slurm",
        remedy="scontrol show job says by whom; the lines above it say whether something had failed before",
        sure=0.7,
        weight=32,
    ),
    Rule(
        id="ssh",
        where=("node",),
        texts=(
            r"Permission denied \((?:publickey|password|gssapi)[^)]*\)",
            r"Host key verification failed",
            r"REMOTE HOST IDENTIFICATION HAS CHANGED",
            r"ssh: (?:connect to host|Could not resolve hostname) .{1,120}",
            r"kex_exchange_identification: .{1,80}",
            r"Too many authentication failures",
            r"No authentication methods available",
            r"not a valid \w+ private key",
            r"ssh_exchange_identification",
        ),
        says="cannot be reached by ssh: {match}",
        remedy=(
            "try it: ssh {host} true; keys belong in the agent or in ~/.ssh/config; a known host changed its "
            "key only if you know why"
        ),
        sure=0.95,
    ),
    Rule(
        id="hangup",
        where=("raised", "line"),
        texts=(
            r"Received (?:1|(?:Signals\.)?SIGHUP) death signal",
            r"got signal: 1$",
            r"closing signal SIGHUP",
        ),
        says="was ended with its terminal or ssh session (SIGHUP)",
        remedy="start it detached (rankdeck launch does; or setsid, tmux), with output to files",
        sure=0.95,
        weight=66,
    ),
    Rule(
        id="interrupted",
        where=("raised", "line"),
        texts=(
            r"Received (?:2|(?:Signals\.)?SIGINT) death signal",
            r"got signal: 2$",
            r"KeyboardInterrupt",
        ),
        says="was interrupted (SIGINT, Ctrl-C)",
        remedy="somebody stopped it at that node: if nobody did, look for what else ends processes there",
        weight=34,
    ),
    Rule(
        id="terminated",
        where=("raised", "line"),
        texts=(
            r"Received (?:15|(?:Signals\.)?SIGTERM) death signal",
            r"got signal: 15$",
        ),
        says="was asked to end from outside (SIGTERM, signal 15)",
        remedy=(
            "scancel, a scheduler's limit, kill, or an operator: see who did (scontrol show job, the shell "
            "history on {host})"
        ),
        sure=0.8,
        weight=33,
    ),
)
