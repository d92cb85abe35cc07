"""The program itself: shapes, types, gradients, losses, data and checkpoints."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

RULES = (
    Rule(
        id="unused-parameters",
        texts=(
            r"Expected to have finished reduction in the prior iteration",
            r"[Pp]arameters? (?:indices )?which did not receive grad",
            r"parameters that were not used in producing (?:the )?loss",
        ),
        also=r"Parameter indices which did not receive grad",
        says=("has parameters that got no gradient (unused in the loss), which DistributedDataParallel does not allow"),
        remedy=(
            "pass find_unused_parameters=True to DistributedDataParallel, or freeze those parameters; `env: "
            "{TORCH_DISTRIBUTED_DEBUG: DETAIL}` names them"
        ),
        sure=0.97,
    ),
    Rule(
        id="marked-ready-twice",
        texts=(
            r"Expected to mark a variable ready only once",
            r"parameter at index \d+ (?:with name \S+ )?has been marked as ready twice",
        ),
        says="used a parameter twice in one backward pass of DistributedDataParallel",
        remedy=(
            "with activation checkpointing use use_reentrant=False, or call _set_static_graph(); share no "
            "module between two forwards"
        ),
        sure=0.95,
    ),
    Rule(
        id="models-differ",
        texts=(
            r"[Ee]xpects same model across(?: all)? ranks",
            r"appears not to match (?:sizes|strides) of the same param",
            r"inconsistent \d+ params",
            r"params\[\d+\] in this process.{0,200}",
        ),
        says="has another model than its peers: {detail}",
        remedy=(
            "build the same model on every rank (same config, no `if rank`), and the same checkpoint on every node"
        ),
        sure=0.95,
    ),
    Rule(
        id="checkpoint-mismatch",
        texts=(
            r"size mismatch for \S+",
            r"Error\(s\) in loading state_dict",
            r"Missing key\(s\) in state_dict",
            r"[Uu]nexpected key\(s\) in state_dict",
            r"parameter group that doesn't match",
            r"shape mismatch.{0,80}checkpoint",
        ),
        says="cannot load its checkpoint: it does not fit the model: {detail}",
        remedy="load the checkpoint of this model configuration; compare config and checkpoint path on all nodes",
        sure=0.92,
    ),
    Rule(
        id="checkpoint-not-plain",
        texts=(r"Weights only load failed",),
        says="cannot load a checkpoint that holds more than tensors (torch.load with weights_only=True): {detail}",
        remedy="torch.load(…, weights_only=False) if you trust the file, or torch.serialization.add_safe_globals",
    ),
    Rule(
        id="checkpoint-broken",
        texts=(
            r"PytorchStreamReader failed",
            r"failed finding central directory",
            r"UnpicklingError",
            r"EOFError: Ran out of input",
            r"Error while deserializing header",
            r"SafetensorError",
            r"pickle data was truncated",
            r"invalid magic number",
        ),
        says="cannot read a file that is cut short or damaged: {detail}",
        remedy=(
            "the file was not written to its end (disk full, killed while saving): use an older checkpoint, or "
            "copy it again"
        ),
        sure=0.88,
    ),
    Rule(
        id="nan-loss",
        where=("raised", "line"),
        texts=(
            (
                r"(?i:(?:loss|gradients?|grad[ _]norm|activations?|logits|output|tensor|value|weights?)"
                r"\W.{0,60}(?:\bnan\b|\binf\b|infinite|non-?finite|not (?:a )?finite|not a number|diverg)|"
                r"\bnan\b.{0,40}(?:loss|detected|encountered|gradient|found)|non-?finite (?:loss|grad\w*)|"
                r"(?:detected|found|got|encountered) (?:nan|inf)\b|returned nan values in its \d|loss is nan|"
                r"infinite loss|loss scale already at minimum|probability tensor contains either)"
            ),
            r"FloatingPointError: .{1,120}",
        ),
        says="stopped at a loss or gradient that is not finite (NaN or inf): {detail}",
        remedy=(
            "lower `batch.base_lr` or add warm-up and gradient clipping, use bf16 instead of fp16, and look at "
            "the batch of that step; torch.autograd.set_detect_anomaly(True) finds the operation"
        ),
    ),
    Rule(
        id="dataloader-worker-killed",
        texts=(
            r"DataLoader worker \(pid\(?s?\)? ?(?P<pid>[\d, ]+)\) is killed by signal: (?P<signal>\w+(?: \w+)*)",
            r"DataLoader worker \(pid\(?s?\)? ?(?P<pid>[\d, ]+)\) exited unexpectedly",
        ),
        says="lost a DataLoader worker (pid {pid})[: {signal}]",
        remedy=(
            "Killed is most often for want of host memory, Bus error for want of shared memory: fewer `num_workers`, "
            "a larger /dev/shm; see the kernel's log: ssh {host} dmesg; num_workers=0 shows an error of its own"
        ),
        sure=0.8,
    ),
    Rule(
        id="dtype-mismatch",
        texts=(
            r"expected (?:scalar type|m\w+ and m\w+ to have the same dtype|dtype).{0,120}",
            r"must have the same dtype.{0,100}",
            r"Found dtype \w+ but expected \w+",
            r"Input type \(.{1,60}\) and (?:bias|weight) type \(.{1,60}\) should be the same",
            r"result type \w+ can't be cast",
            r"""\"\w+\" not implemented for '\w+'""",
            r"can't be cast to the desired output type",
        ),
        says="mixed data types: {detail}",
        remedy="cast inputs and model to one dtype (autocast, .to(torch.bfloat16)); compare what each rank loads",
    ),
    Rule(
        id="device-mismatch",
        texts=(
            r"Expected all tensors to be on the same device",
            r"expected device \S+ but got",
            r"is on (?:the )?cpu.{0,60}cuda",
            r"module must have its parameters .{0,40}on device",
        ),
        says="mixed tensors of different devices: {detail}",
        remedy="move model and batch to the device of LOCAL_RANK before the forward pass",
    ),
    Rule(
        id="shape-mismatch",
        texts=(
            r"shapes cannot be multiplied",
            r"size of tensor a \(\d+\) must match",
            r"Sizes of tensors must match",
            r"shape '\[.{0,60}\]' is invalid for input",
            r"stack expects each tensor to be equal size",
            r"Expected input batch_size",
            r"[Ii]nput and target (?:shape|size)",
            r"size mismatch",
            r"[Ss]hape mismatch",
            r"[Dd]imension out of range",
            r"mismatch(?:ed)? (?:in )?(?:shape|size|dimension)",
            r"[Ee]xpected .{0,60}(?:size|shape|dimension|input\[).{0,80}(?:got|but)",
            r"must match the (?:size|existing size)",
            r"shapes? .{0,40} not aligned",
            r"could not be broadcast",
            r"same (?:shape|size|number of)",
        ),
        says="met tensors whose shapes do not fit: {detail}",
        remedy=(
            "print the shapes there; the last, smaller batch (drop_last=True) and a vocabulary or config of "
            "another model do this"
        ),
    ),
    Rule(
        id="index-out-of-range",
        texts=(
            r"index out of range in self",
            r"IndexError: Target \d+ is out of bounds",
            r"index \d+ is out of bounds for dimension",
        ),
        says="looked up an index beyond its table: {detail}",
        remedy=(
            "check token and label ids against the vocabulary and the number of classes; tokenizer and model "
            "must belong together"
        ),
    ),
    Rule(
        id="autograd",
        texts=(
            r"does not require grad",
            r"[Tt]rying to backward through the graph a second time",
            r"modified by an inplace operation",
            r"leaf Variable that requires grad",
        ),
        says="used autograd wrongly: {detail}",
        remedy="correct the program; torch.autograd.set_detect_anomaly(True) shows the operation",
    ),
    Rule(
        id="group-misuse",
        texts=(
            r"Default process group has not been initialized",
            r"trying to initialize the default process group twice",
            r"environment variable (?P<name>\w+) expected, but not set",
            r"KeyError: '(?P<name>(?:LOCAL_)?RANK|(?:LOCAL_)?WORLD_SIZE|MASTER_(?:ADDR|PORT))'",
            r"Error initializing torch\.distributed using env://",
            r"rank .{0,20}(?:out of range|invalid)",
            r"Cannot use NCCL.{0,40}",
            r"[Gg]lobal rank \d+ is not part of group",
        ),
        says="used torch.distributed wrongly: {detail}",
        remedy="start the program with torchrun, and call init_process_group once, first",
    ),
)
