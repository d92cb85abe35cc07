"""Before the first step: the shell, the command line, modules and files."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

QUOTES = "\\u2018\\u2019'\""
"""What GNU programs put around names, by locale."""

RULES = (
    Rule(
        id="environment-missing",
        where=("node", "line"),
        texts=(
            r"(?P<path>\S{0,200}(?:activate|conda\.sh|\.bashrc|\.sh)): No such file or directory",
            r"EnvironmentNameNotFound",
            r"Could not find conda environment:? ?(?P<path>\S*)",
            r"(?:CondaError|CommandNotFoundError).*conda (?:init|activate)",
        ),
        says="could not activate its environment[ ({path})]",
        remedy=(
            "set `program.activate` (or the node's own `activate`) to a command that works there: ssh {host} 'COMMAND'"
        ),
    ),
    Rule(
        id="workdir-missing",
        where=("node", "line"),
        texts=(
            (
                r"cd: (?:can't cd to )?(?P<path>\S+?)(?:: (?:No such file or directory|Not a directory|Permission "
                r"denied)|$)"
            ),
        ),
        says="has no working folder {path}",
        remedy="create {path} there, share it, or give the node its own `workdir` in the profile",
    ),
    Rule(
        id="command-not-found",
        where=("node", "line"),
        texts=(
            r"command not found: (?P<program>\S+)",
            r"(?:^|[:\s])(?P<program>[\w./+-]+): (?:command )?not found\b",
            r"(?:\benv|nohup|setsid|exec|timeout|execve\(\)|failed to (?:run|execute)(?: command)?)"
            rf"[^{QUOTES}]{{0,40}}[{QUOTES} ](?P<program>[\w./+-]+)[{QUOTES}]?: No such file or directory",
            r"line \d+: (?P<program>/\S+): No such file or directory",
            r"(?:bash|sh): (?P<program>/\S+): No such file or directory",
        ),
        says="does not find the program[ {program}] (exit code 127)",
        remedy=(
            "the shell there is not interactive, so .bashrc and conda may not run: set `program.activate`, or "
            "name the program by its full path; try it: ssh {host} 'command -v torchrun'"
        ),
    ),
    Rule(
        id="xtuner-command",
        where=("node", "line"),
        texts=(r"WARNING: command error: '(?P<what>.{1,200})'!",),
        says="could not start XTuner: {what}",
        remedy="install what is missing, or set `program.activate` to an environment that has it: ssh {host} 'COMMAND'",
    ),
    Rule(
        id="not-executable",
        where=("node", "line"),
        texts=(
            rf"(?:bash|sh|line \d+|env|execve\(\)): ?[{QUOTES}]?(?P<path>/?[\w./-]+)[{QUOTES}]?: Permission denied",
            r"cannot execute binary file",
        ),
        says="may not execute[ {path}] (exit code 126)",
        remedy="chmod +x {path}; a file for another processor architecture cannot be executed either",
    ),
    Rule(
        id="library-missing",
        where=("node", "line"),
        texts=(
            r"error while loading shared libraries: (?P<what>[^:]{1,120}): cannot open shared object file",
            r"version [`'](?P<what>\w+_[\d.]+)' not found",
        ),
        says="cannot start its program: the library {what} is missing there",
        remedy="the environment is of another system: build it on that node, set LD_LIBRARY_PATH, or use one container",
    ),
    Rule(
        id="container",
        where=("node",),
        texts=(
            r"docker: (?P<what>Error response from daemon: .{1,200})",
            r"FATAL: +(?P<what>(?:[Cc]ould not open image|[Ii]mage|container|.{0,40}no such file).{1,160})",
            r"(?:pyxis|enroot)\S*: (?P<what>.{0,40}(?:[Ee]rror|[Ff]ailed|couldn't|[Nn]o such).{1,160})",
        ),
        says="could not start its container: {what}",
        remedy="start it there by hand: is the image on that node, and the NVIDIA container toolkit installed?",
        sure=0.88,
    ),
    Rule(
        id="bad-option",
        where=("line", "node", "raised"),
        texts=(
            (
                r"(?:^|\s)(?P<program>[\w./-]+): error: (?P<what>unrecognized arguments?: .{1,200}|the following "
                r"arguments are required: .{1,200}|argument .{1,200}|ambiguous option: .{1,200}|invalid "
                r"choice.{1,200}|unknown .{1,100}|.{0,60}not allowed with.{0,100}|too few arguments|expected "
                r".{1,100})"
            ),
            (
                r"(?P<what>(?:[Nn]o such option|[Uu]nknown option|[Uu]nrecognized option|[Ii]nvalid option|Unknown "
                r"command line flag)\W.{0,100})"
            ),
            r"(?P<what>Some specified arguments are not used by the HfArgumentParser: .{0,200})",
            r"(?P<what>Could not override .{0,200}|Key '\S+' is not in struct)",
            r"unparseable",
            r"(?P<what>Unsupported nproc_per_node value: \S+)",
            r"(?P<what>Unknown field for option \S+)",
        ),
        says="was given an option that does not exist or fit[ ({program})][: {what}]",
        remedy="correct `program.args` in the profile; an old torchrun lacks newer flags: torchrun --help there",
        sure=0.95,
    ),
    Rule(
        id="torch-missing",
        where=("raised", "line", "node"),
        texts=(
            r"ModuleNotFoundError: No module named '(?P<module>torch)'",
            r"No module named (?P<module>torch)\.distributed",
        ),
        says="runs a Python that has no torch",
        remedy="set `program.activate` to the environment in which torch is installed, on that node",
        sure=0.95,
    ),
    Rule(
        id="script-missing",
        where=("line", "node"),
        texts=(
            r"can't open file '?(?P<path>[^':]+)'?: \[Errno 2\]",
            r"can't find '__main__' module in '(?P<path>[^']+)'",
            r"python[\d.]*: No module named (?P<module>[\w.]+)",
            r"Error while finding module specification for '(?P<module>[^']+)'",
        ),
        says="has no program[ {path}][ module {module}]",
        remedy=("the path must exist on every node: copy it there, share the folder, or set the node's own `workdir`"),
        sure=0.95,
    ),
    Rule(
        id="syntax-error",
        where=("raised", "line"),
        texts=(r"(?P<what>(?:Syntax|Indentation|Tab)Error: .{1,200})",),
        says="cannot read its program: {what}",
        remedy="correct the file, or run it with the Python version that it is written for",
    ),
    Rule(
        id="import-error",
        texts=(
            r"ModuleNotFoundError: No module named '(?P<module>[^']+)'",
            r"ImportError: (?P<what>.{1,240})",
            r"OSError: (?P<what>\S*\.so[\d.]*: .{1,160})",
            r"(?P<what>(?:undefined symbol: \S+|version `?GLIBC\S+ not found))",
        ),
        says="cannot import[ the module {module}][: {what}]",
        remedy=(
            "install it in the environment of that node[: pip install {module}]; compare the nodes: rankdeck "
            "check PROFILE"
        ),
        sure=0.95,
    ),
    Rule(
        id="extension-build",
        texts=(
            r"Error building extension '(?P<what>[^']+)'",
            r"(?P<what>Installed CUDA version \S+ does not match the version torch was compiled with \S+)",
            r"Failed to find C compiler",
            r"Ninja is required to load C\+\+ extensions",
            r"CUDA_HOME (?:environment variable )?(?:is not set|does not exist)",
            r"Command '\[?'?\S*(?:gcc|g\+\+|nvcc|ninja|cc)'",
        ),
        says="cannot compile a C++ or CUDA extension[ ({what})]",
        remedy=(
            "it needs gcc, ninja and the CUDA toolkit of torch's version there: ssh {host} 'which gcc ninja nvcc'; or"
            " install the extension built (wheel), or let one rank build it before the others start"
        ),
        sure=0.88,
    ),
    Rule(
        id="model-missing",
        texts=(
            (
                r"(?P<what>(?:\S{1,200} is not a local folder and is not a valid model identifier|Can't load (?:the )"
                r"?(?:tokenizer|config\w*|model|feature extractor) for|Couldn't find (?:a|any) (?:dataset|data file)"
                r"|Error no file named \S+|does not appear to have a file named).{0,160})"
            ),
            r"DatasetNotFoundError: (?P<what>.{1,200})",
        ),
        says="does not find a model or data set: {what}",
        remedy=(
            "put it at the same path on that node, or share the folder; HF_HOME must name a cache that the node has"
        ),
    ),
    Rule(
        id="hub-unreachable",
        texts=(
            (
                r"(?:couldn't connect to 'https?://|LocalEntryNotFoundError|OfflineModeIsEnabled|"
                r"(?:HTTPSConnectionPool|Max retries exceeded|ConnectionError|ConnectTimeout|NameResolutionError)"
                r".{0,200}(?P<site>huggingface\.co|hf-mirror\.com|modelscope\.cn|s3\.amazonaws|pypi\.org|wandb\.ai|"
                r"openaipublic))"
            ),
        ),
        says="cannot reach the internet[ ({site})], where it wants to download",
        remedy='download on a node that can, to a shared folder, and set `env: {HF_HUB_OFFLINE: "1"}`',
    ),
    Rule(
        id="hub-refused",
        texts=(
            r"GatedRepoError|gated repo",
            r"RepositoryNotFoundError",
            r"(?:401|403|429) Client Error",
            r"Invalid (?:username or password|user token|credentials)",
            r"WANDB_API_KEY",
            r"api_key not configured",
        ),
        says="was refused by the site it downloads from or reports to: {exc}",
        remedy=(
            "name the token under `secrets:` in the profile (HF_TOKEN, WANDB_API_KEY) and export it before the launch"
        ),
    ),
    Rule(
        id="file-missing",
        texts=(
            (
                r"(?:FileNotFoundError|NotADirectoryError|IOError|OSError|RuntimeError|HDF5\S*)"
                r"\b.{0,120}?(?:\[Errno (?:2|20)\] )?(?:No such file or directory|Not a directory|unable to open "
                r"file|[Ff]ile (?:does )?not (?:exist|found)|does not exist)(?:: "
                r"""?[b]?['\"]?(?P<path>[^'\"\n]{1,200}))?"""
            ),
            r"FileNotFoundError: (?P<what>.{1,200})",
        ),
        says="does not find a file[: {path}][: {what}]",
        remedy=(
            "the file must be on every node: share the folder, or copy it to {host}; a file that rank 0 makes "
            "first is missing where the folder is not shared"
        ),
    ),
)
