"""GPUs: memory, drivers, devices, and what CUDA says when a kernel goes wrong."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

FULL = r"(?:CUDA|HIP|XPU|NPU) out of memory"
SIZE = r"[\d.]+ ?[KMGT]?i?B"

RULES = (
    Rule(
        id="gpu-taken",
        texts=(
            # Without “this process has”, as in a container, the process that is named by its number is the rank itself.
            r"CUDA out of memory(?=(?s:.{0,900}?)this process has)"
            r"(?s:.{0,600}?)(?:Process \d+ has (?P<other>(?:[2-9]|\d{2,})[\d.]* GiB) memory in use)",
            r"CUDA-capable device\(s\) is/are busy or unavailable",
            r"all CUDA-capable devices are busy",
        ),
        says="found a GPU that another program uses[ ({other} of it)]",
        remedy="see who: ssh {host} nvidia-smi; left-over ranks of earlier runs: rankdeck reap PROFILE",
        sure=0.8,
    ),
    Rule(
        id="cuda-out-of-memory",
        where=("raised", "line"),
        texts=(
            rf"{FULL}. Tried to allocate (?P<asked>{SIZE})(?s:.{{0,80}}?)total capacity of (?P<total>{SIZE}) of which "
            rf"(?P<free>{SIZE}) is free",
            rf"{FULL}. Tried to allocate (?P<asked>{SIZE})(?s:.{{0,80}}?)(?P<total>{SIZE}) total capacity"
            rf"(?s:.{{0,120}}?)(?P<free>{SIZE}) free",
            rf"{FULL}. Tried to allocate (?P<asked>{SIZE})",
            FULL,
            r"CUDA error: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"CUDNN_STATUS_ALLOC_FAILED",
            r"[Cc]uda failure(?: \d+)? '?out of memory",
            r"cudaErrorMemoryAllocation",
            r"Triton Error \[CUDA\]: out of memory",
            r"NVML_SUCCESS == r INTERNAL ASSERT FAILED.{0,60}CUDACachingAllocator",
        ),
        says=("ran out of GPU memory[: it asked for {asked}][, {free} of {total} were free]"),
        remedy=(
            "lower `batch.per_device` (and raise `batch.grad_accum` to keep the global batch), use activation "
            'checkpointing, or `env: {PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True"}`'
        ),
        sure=0.95,
    ),
    Rule(
        id="driver",
        where=("raised", "line", "node"),
        texts=(
            r"NVIDIA driver on your system is too old",
            r"Driver/library version mismatch",
            r"CUDA driver initialization failed",
            r"CUDA driver version is insufficient",
            r"forward compatibility was attempted",
            r"system not yet initialized",
            r"CUDA unknown error",
            r"nvidia-smi has failed",
            r"[Cc]ouldn't communicate with the NVIDIA driver",
            r"Can't initialize NVML",
            r"unsupported display driver",
        ),
        says="has an NVIDIA driver that cannot be used: {detail}",
        remedy=(
            "see it: ssh {host} nvidia-smi; after a driver update the node has to be restarted; or install the "
            "torch that fits the driver"
        ),
        sure=0.85,
    ),
    Rule(
        id="no-gpu",
        where=("raised", "line"),
        texts=(
            r"Cuda is not available",
            r"No CUDA GPUs are available",
            r"Found no NVIDIA driver",
            r"Torch not compiled with CUDA enabled",
            r"no CUDA-capable device is detected",
            r"only supported with GPUs, no GPUs found",
            r"CUDA is not available",
            r"torch\.cuda\.is_available\(\) (?:should be|is) (?:True|False)",
            r"requires (?:a )?(?:GPU|CUDA)\b",
        ),
        says="has no GPU that torch can use: {detail}",
        remedy=(
            "see it: ssh {host} 'nvidia-smi; echo $CUDA_VISIBLE_DEVICES'; install a torch with CUDA, or run on "
            "CPUs with the backend gloo and `gpus: N` ranks"
        ),
        sure=0.92,
    ),
    Rule(
        id="no-such-gpu",
        where=("raised", "line"),
        texts=(
            r"invalid device ordinal",
            r"Invalid device id",
            r"device >= 0 && device < num_gpus",
            r"CUDA_VISIBLE_DEVICES.{0,60}invalid",
        ),
        says="has fewer GPUs than ranks: there is no device for this local rank",
        remedy="set the node's `gpus` to what nvidia-smi shows there, or drop CUDA_VISIBLE_DEVICES",
        sure=0.92,
    ),
    Rule(
        id="gpu-broken",
        where=("raised", "line", "node"),
        texts=(
            r"uncorrectable (?:NVLink|ECC) error",
            r"NVRM: Xid.{0,120}?: (?P<xid>\d+)",
            r"GPU has fallen off the bus",
            r"(?:hardware|NVLink|unspecified launch) (?:error|failure)\b",
            r"CUDA error: (?:unknown error|hardware stack error)",
            r"GPU is lost",
            r"CUDA error: (?:the launch timed out|system has unsupported)",
        ),
        says="has a GPU that failed[ (Xid {xid})]: {detail}",
        remedy=(
            "see the kernel's log: ssh {host} 'dmesg | grep -i xid'; leave the node out (remove it from "
            "`nodes`) and have it looked at"
        ),
        sure=0.85,
    ),
    Rule(
        id="cuda-assert",
        where=("raised", "line"),
        texts=(
            r"device-side assert triggered",
            r"Assertion [`'].{1,120}['`] failed",
        ),
        also=r"Assertion [`'].{1,160} failed",
        says=(
            "gave a CUDA kernel an index out of range (device-side assert): most often a label or token id "
            "beyond its table"
        ),
        remedy=(
            "check label and token ids against the number of classes and the vocabulary; `env: "
            '{CUDA_LAUNCH_BLOCKING: "1"}` shows where'
        ),
    ),
    Rule(
        id="gpu-too-old",
        texts=(
            r"no kernel image is available for execution",
            r"only supports? \w+ GPUs or newer",
            r"not compatible with the current PyTorch installation",
            r"requires? (?:a GPU with )?(?:CUDA )?compute capability",
        ),
        says="has a GPU for which its torch, or a CUDA extension, was not built: {detail}",
        remedy=(
            "see which it is: ssh {host} nvidia-smi -L; install the torch for it, rebuild the extension there with "
            "TORCH_CUDA_ARCH_LIST, or switch the feature off (attn_implementation=sdpa)"
        ),
    ),
    Rule(
        id="cuda-error",
        texts=(
            r"CUDA error: (?P<what>[^\n]{1,160})",
            r"CUBLAS_STATUS_\w+",
            r"CUDNN_STATUS_\w+",
            r"illegal memory access",
            r"misaligned address",
            r"cuFFT error",
            r"HIP error",
        ),
        says="had a CUDA error[: {what}]",
        remedy=(
            '`env: {CUDA_LAUNCH_BLOCKING: "1"}` shows the kernel; if it is always the same GPU, leave that one out'
        ),
        sure=0.85,
    ),
)
