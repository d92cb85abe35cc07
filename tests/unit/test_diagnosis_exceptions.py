"""The rule for each exception that a rank may die of, and for the texts with which launches are known to fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.diagnosis import Source, diagnose

LOST = """\
torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:219, remote process exited or there was a network error
ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.
Last error:
socketProgress: Connection closed by remote peer node2<4711>"""


def log(rank: int, raised: str, clock: str) -> str:
    """What torchrun on a node shows of one rank that raises."""
    lines = ["Traceback (most recent call last):", '  File "/data/exp/train.py", line 10, in main', "    step()"]
    marked = "".join(f"[rank{rank}]: {line}\n" for line in [*lines, *raised.split("\n")])
    return (
        f"{marked}E1124 {clock}.500000 90 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) "
        "local_rank: 0 (pid: 100) of binary: /opt/bin/python\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        f"Root Cause (first observed failure):\n[0]:\n  time      : 2026-11-24_{clock}\n  host      : h\n"
        f"  rank      : {rank} (local_rank: 0)\n  exitcode  : 1 (pid: 100)\n  error_file: <N/A>\n"
    )


@pytest.mark.parametrize(
    ("rule", "raised"),
    [
        ("exception", "KeyError: 'input_ids'"),
        (
            "cuda-out-of-memory",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 Mi"
            "B. GPU 0 has a total capacity of 79.14 GiB of which 3.62 MiB is free. "
            "Including non-PyTorch memory, this process has 79.12 GiB memory in use"
            ".",
        ),
        ("cuda-error", "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(`"),
        (
            "cuda-assert",
            "RuntimeError: CUDA error: device-side assert triggered\nCUDA kernel err"
            "ors might be asynchronously reported",
        ),
        ("cuda-error", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
        (
            "checkpoint-mismatch",
            "RuntimeError: Error(s) in loading state_dict for GPT:\n\tsize mismatch f"
            "or wte.weight: copying a param with shape torch.Size([50257, 768]) fro"
            "m checkpoint",
        ),
        ("shape-mismatch", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x9 and 8x16)"),
        (
            "dtype-mismatch",
            "RuntimeError: expected mat1 and mat2 to have the same dtype, but got: float != c10::BFloat16",
        ),
        ("file-missing", "FileNotFoundError: [Errno 2] No such file or directory: '/data/shard_0003.bin'"),
        ("permission", "PermissionError: [Errno 13] Permission denied: '/ckpt/run1'"),
        ("disk-full", "OSError: [Errno 28] No space left on device"),
        ("disk-full", "OSError: [Errno 122] Disk quota exceeded: '/home/x'"),
        ("import-error", "ImportError: /opt/flash_attn.so: undefined symbol: _ZN3c10"),
        ("import-error", "ImportError: cannot import name 'foo' from 'transformers' (/opt/x/__init__.py)"),
        ("nan-loss", "ValueError: Loss is nan, stopping training"),
        ("nan-loss", "AssertionError: loss is NaN at iteration 12"),
        ("dataloader-worker-killed", "RuntimeError: DataLoader worker (pid 1234) is killed by signal: Killed. "),
        ("dataloader-worker-killed", "RuntimeError: DataLoader worker (pid(s) 1234) exited unexpectedly"),
        ("autograd", "RuntimeError: Trying to backward through the graph a second time"),
        ("exception", "TypeError: forward() got an unexpected keyword argument 'foo'"),
        ("exception", "AttributeError: 'NoneType' object has no attribute 'shape'"),
        ("exception", "ZeroDivisionError: division by zero"),
        ("exception", "RecursionError: maximum recursion depth exceeded"),
        ("exception", "StopIteration"),
        ("exception", "NotImplementedError"),
        ("index-out-of-range", "IndexError: index out of range in self"),
        ("exception", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x80 in position 0: invalid start byte"),
        ("exception", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("exception", "mypkg.errors.BadShard: shard 7 corrupt"),
        ("too-many-files", "OSError: [Errno 24] Too many open files: '/data/x'"),
        ("too-many-processes", "RuntimeError: can't start new thread"),
        (
            "hub-unreachable",
            "OSError: We couldn't connect to 'https://huggingface.co' to load this "
            "file, couldn't find it in the cached files",
        ),
        (
            "hub-refused",
            "OSError: You are trying to access a gated repo.\nMake sure to have acce"
            "ss to it at https://huggingface.co/meta-llama",
        ),
        (
            "model-missing",
            "OSError: foo/bar is not a local folder and is not a valid model identi"
            "fier listed on 'https://huggingface.co/models'",
        ),
        ("no-gpu", "RuntimeError: No CUDA GPUs are available"),
        ("no-gpu", "RuntimeError: Found no NVIDIA driver on your system."),
        ("no-such-gpu", "RuntimeError: CUDA error: invalid device ordinal"),
        ("disk-error", "OSError: [Errno 116] Stale file handle: '/nfs/x'"),
        ("disk-error", "OSError: [Errno 5] Input/output error"),
        ("read-only-disk", "OSError: [Errno 30] Read-only file system: '/data/x'"),
        (
            "cpu-out-of-memory",
            "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 14.9 GiB "
            "for an array with shape (2000000000,)",
        ),
        (
            "unused-parameters",
            "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one.",
        ),
        ("marked-ready-twice", "RuntimeError: Expected to mark a variable ready only once."),
        ("gpu-broken", "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
        (
            "cuda-out-of-memory",
            "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:\nRu"
            "ntimeError: Triton Error [CUDA]: out of memory",
        ),
        (
            "bad-option",
            "hydra.errors.ConfigCompositionException: Could not override 'trainer.foo'.\nKey 'foo' is not in struct",
        ),
        (
            "device-mismatch",
            "RuntimeError: Expected all tensors to be on the same device, but found"
            " at least two devices, cuda:0 and cpu!",
        ),
    ],
)
def test_an_exception_has_its_rule(rule: str, raised: str) -> None:
    logs = [log(0, LOST, "10:00:06"), log(1, raised, "10:00:04")]
    verdict = diagnose([Source(name=f"{k}", node_rank=k, data=text.encode()) for k, text in enumerate(logs)])
    assert verdict is not None
    assert (verdict.rule, verdict.role, verdict.node_rank, verdict.rank) == (rule, "root", 1, 1)


TEXTS = re.findall(
    r"^===== (\S+) =====\n(.*?)(?=^=====|\Z)",
    (Path(__file__).parent / "diagnosis_texts.txt").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


HEALTHY = re.findall(
    r"^===== (\S+) =====\n(.*?)(?=^=====|\Z)",
    (Path(__file__).parent / "diagnosis_healthy.txt").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("text", [text for _, text in HEALTHY], ids=[name for name, _ in HEALTHY])
def test_words_that_frighten_in_a_run_that_went_on_are_no_failure(text: str) -> None:
    torchruns = re.compile(r"[EW]1124|srun|slurmstepd|bash:")
    tee = "".join(line if torchruns.match(line) else f"[default0]:{line}" for line in text.splitlines(keepends=True))
    for logs in ([text], [tee], [text, "step 1 loss 0.2\n"], ["[default0]:step 1 loss 0.2\n", tee]):
        assert diagnose([Source(name=f"{k}", node_rank=k, data=log.encode()) for k, log in enumerate(logs)]) is None


@pytest.mark.parametrize(("rule", "text"), TEXTS)
def test_a_known_text_has_its_rule(rule: str, text: str) -> None:
    verdict = diagnose([Source(name="0", node_rank=0, data=text.encode())])
    assert verdict is not None
    assert verdict.rule == rule
    assert verdict.proof
