"""Samples: text as bytes, files of tokens, made-up tokens, or the user's own data set.

A data set has a length and gives the batch of a list of sample numbers. The user's own has `__getitem__`, as torch's
map-style data sets do; those in here have `__getitems__`, and give (tokens, their successors), int64, each
(samples, context).
"""

from __future__ import annotations

import bisect
import ctypes
import importlib
import itertools
import json
import mmap
import sysconfig
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.train.config import imported
from engine.train.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.train.config import Config

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # by size; read as unsigned
ENDS = 1 << 20  # of a token file, so many bytes at both ends tell it from another
MADE_UP = 1024  # different samples in synthetic data
MADE_UP_EPOCH = 1 << 20  # samples


def open_data(config: Config) -> Any:
    """The data set that `config.data` names; ConfigError where there is none, or where it cannot be read."""
    if ":" in config.data:
        return imported(config.data, "data")(**config.data_args)
    if config.data == "synthetic":
        rows = torch.randint(
            config.vocabulary, (MADE_UP, config.context + 1), generator=torch.Generator().manual_seed(config.seed)
        )
        return Tokens([rows.int().flatten()], config, length=MADE_UP_EPOCH)
    files = data_files(config)
    if all(path.suffix == ".bin" for path in files):
        return Tokens([mapped(path, config.token_bytes) for path in files], config)
    return Tokens([torch.frombuffer(read_text(files, config), dtype=torch.uint8)], config)


def data_files(config: Config) -> list[Path]:
    root = Path(config.data or sysconfig.get_paths()["stdlib"]).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ConfigError(f"data is {config.data}, and there is no such file or folder here")
    files = sorted(p for p in root.rglob(config.data_glob) if "site-packages" not in p.parts and p.is_file())
    if not files:
        raise ConfigError(f"nothing under {root} matches {config.data_glob!r}; set data_glob to the files to read")
    if len({path.suffix == ".bin" for path in files}) > 1:
        raise ConfigError(f"{root} has token files (.bin) and others; set data_glob to one kind")
    return files


def read_text(files: list[Path], config: Config) -> bytearray:
    """The first `data_bytes` bytes of the documents in the files."""
    text = bytearray()
    for path in files:
        for document in DOCUMENTS.get(path.suffix, whole)(path, config.data_field):
            text += document
            if len(text) >= config.data_bytes:
                return text[: config.data_bytes]
    if not text:
        raise ConfigError(f"there is no text in {files[0]}{' and the other files' if len(files) > 1 else ''}")
    return text


def whole(path: Path, field: str) -> Iterator[bytes]:
    yield path.read_bytes()


def json_lines(path: Path, field: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)[field].encode() + b"\n"
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{path}, line {number}: no text in {field!r} ({error!r}); set data_field") from None


def parquet(path: Path, field: str) -> Iterator[bytes]:
    try:
        reader = importlib.import_module("pyarrow.parquet").ParquetFile(path)
    except ImportError:
        raise ConfigError(f"{path} is parquet, and this Python cannot read it: pip install pyarrow") from None
    if field not in reader.schema_arrow.names:
        raise ConfigError(f"{path} has no column {field!r}; set data_field to one of: {reader.schema_arrow.names}")
    for batch in reader.iter_batches(columns=[field]):
        yield from (text.encode() + b"\n" for text in batch.column(0).to_pylist() if text)


DOCUMENTS: dict[str, Callable[[Path, str], Iterator[bytes]]] = {".jsonl": json_lines, ".parquet": parquet}


def mapped(path: Path, token_bytes: int) -> torch.Tensor:
    """The tokens of a file of unsigned integers in this machine's byte order, mapped into memory and not read."""
    size = path.stat().st_size
    if size == 0 or size % token_bytes:
        raise ConfigError(f"{path} has {size} bytes, no whole number of tokens of {token_bytes} bytes; set token_bytes")
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants a buffer that it might write to
    return torch.frombuffer(pages, dtype=INTEGERS[token_bytes])


class Tokens:
    """Samples of `context` + 1 tokens that do not overlap; the last tokens of a file that fill none are left out."""

    def __init__(self, files: list[torch.Tensor], config: Config, length: int | None = None) -> None:
        size = config.context + 1
        self.files = [tokens[: len(tokens) // size * size].view(-1, size) for tokens in files]
        self.ends = list(itertools.accumulate(map(len, self.files)))
        self.length = length or self.ends[-1]
        self.vocabulary = config.vocabulary
        self.mask = 256 ** files[0].element_size() - 1

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.stack([self.row(number % self.ends[-1]) for number in numbers]).long() & self.mask
        if (largest := int(rows.max())) >= self.vocabulary:
            raise ConfigError(f"the data holds token {largest}, and vocabulary is {self.vocabulary}; set vocabulary")
        return rows[:, :-1], rows[:, 1:]

    def row(self, number: int) -> torch.Tensor:
        file = bisect.bisect_right(self.ends, number)
        return self.files[file][number - (self.ends[file - 1] if file else 0)]

    @property
    def fingerprint(self) -> int:
        """Equal on two nodes that hold the same data; of mapped files only the ends are read."""
        crc = 0
        for rows in self.files:
            flat = rows.flatten().view(torch.uint8)
            ends = [flat] if len(flat) <= 2 * ENDS else [flat[:ENDS], flat[-ENDS:]]
            for part in ends:
                crc = zlib.crc32(memory_of(part), crc)
        return crc


def memory_of(tensor: torch.Tensor) -> memoryview:
    """A contiguous CPU tensor's bytes, not copied; torch runs without numpy, and has no other quick way to them."""
    size = tensor.numel() * tensor.element_size()
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B") if size else memoryview(b"")
