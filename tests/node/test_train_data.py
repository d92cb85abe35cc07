"""Samples and who gets them: sources of data, the deal, the feed."""

from __future__ import annotations

import itertools
import json
import struct
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

import torch

from engine.train.config import Config, load
from engine.train.data import Tokens, open_data
from engine.train.deal import Deal
from engine.train.errors import ConfigError
from engine.train.feed import batches

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


def opened(*settings: str) -> Tokens:
    data = open_data(load(None, ["context=4", *settings]))
    assert isinstance(data, Tokens)
    return data


def deals(samples: int, ranks: int, batch: int, grad_accum: int) -> list[Deal]:
    return [Deal(samples, rank=r, ranks=ranks, batch=batch, grad_accum=grad_accum, seed=1) for r in range(ranks)]


@pytest.mark.parametrize(("ranks", "grad_accum"), [(1, 1), (2, 1), (3, 2), (8, 1)])
def test_every_sample_is_seen_once_an_epoch(ranks: int, grad_accum: int) -> None:
    dealt = deals(1003, ranks, 4, grad_accum)
    for epoch in (0, 1):
        steps = range(epoch * dealt[0].steps, (epoch + 1) * dealt[0].steps)
        seen = [
            n for deal in dealt for step in steps for share in deal.step(step) if share.weight for n in share.samples
        ]
        assert sorted(seen) == list(range(1003))


@pytest.mark.parametrize("samples", [96, 97, 99, 103, 110])
def test_a_steps_weights_make_the_mean_over_its_samples(samples: int) -> None:
    for step in range(deals(samples, 4, 3, 2)[0].steps):
        shares = [deal.step(step) for deal in deals(samples, 4, 3, 2)]
        count = sum(len(share.samples) for rank in shares for share in rank if share.weight)
        for share in itertools.chain(*shares):
            # a rank's mean loss x weight, averaged over 4 ranks, is each sample's part of the mean over all
            assert share.weight in (0, pytest.approx(len(share.samples) * 4 / count))
        assert count == deals(samples, 4, 3, 2)[0].size(step)


def test_ranks_differ_by_no_more_than_one_sample_in_the_last_step() -> None:
    last = [deal.step(deal.steps - 1) for deal in deals(16 + 6, 4, 4, 1)]
    assert [sum(len(share.samples) for share in rank) for rank in last] == [2, 2, 1, 1]


def test_a_rank_that_goes_without_still_takes_part() -> None:
    last = [deal.step(deal.steps - 1) for deal in deals(16 + 2, 4, 4, 1)]
    assert [share.weight for rank in last for share in rank] == [2, 2, 0, 0]
    assert all(len(rank) == 1 and len(rank[0].samples) == 1 for rank in last)


def test_a_step_sees_the_same_samples_however_many_ranks_share_it() -> None:
    def of(ranks: int, batch: int, step: int) -> list[int]:
        return sorted(n for deal in deals(100, ranks, batch, 1) for share in deal.step(step) for n in share.samples)

    assert all(of(1, 8, step) == of(2, 4, step) == of(4, 2, step) for step in range(12))


def test_epochs_are_shuffled_otherwise_and_the_same_again() -> None:
    (one,), (two,) = deals(100, 1, 10, 1), deals(100, 1, 10, 1)
    assert [one.step(step) for step in range(10)] != [one.step(step) for step in range(10, 20)]
    assert [one.step(step) for step in range(20)] == [two.step(step) for step in range(20)]


def test_too_little_data_for_one_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 samples do not fill one total batch of 8"):
        deals(5, 2, 4, 1)


def test_a_token_file_is_mapped_and_its_tokens_are_unsigned(tmp_path: Path) -> None:
    file = tmp_path / "tokens.bin"
    file.write_bytes(struct.pack("=12H", *range(65524, 65536)))
    data = opened(f"data={file}", "vocabulary=65536")
    tokens, targets = data.__getitems__([1, 0])
    assert tokens.tolist() == [[65529, 65530, 65531, 65532], [65524, 65525, 65526, 65527]]
    assert targets.tolist() == [[65530, 65531, 65532, 65533], [65525, 65526, 65527, 65528]]
    assert len(data) == 2


def test_samples_do_not_cross_token_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(7)))
    (tmp_path / "b.bin").write_bytes(bytes(range(100, 111)))
    data = opened(f"data={tmp_path}", "data_glob=*.bin", "token_bytes=1")
    assert [data.__getitems__([n])[0][0, 0].item() for n in range(len(data))] == [0, 100, 105]


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        (b"abc", ["data={file}"], "has 3 bytes, no whole number of tokens of 2 bytes; set token_bytes"),
        (b"", ["data={file}"], "has 0 bytes"),
        (b"ab" * 20, ["data={file}"], "the data holds token 25185, and vocabulary is 256; set vocabulary"),
    ],
)
def test_a_token_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, settings: list[str], says: str
) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        opened(*(setting.format(file=file) for setting in settings)).__getitems__([0])


def test_json_lines_are_read_by_field(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps({"body": text}) + "\n" for text in ("abcd", "fghi")))
    data = opened(f"data={file}", "data_field=body")
    assert [bytes(row.tolist()) for row in data.__getitems__([0, 1])[0]] == [b"abcd", b"fghi"]


def test_json_lines_without_the_field_are_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "abc"}\n{"body": "x"}\n')
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 2: no text in 'text' .* set data_field"):
        opened(f"data={file}")


def test_parquet_is_read_where_pyarrow_is_installed_and_refused_with_the_way_out_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    try:
        import pyarrow  # type: ignore[import-not-found]
        import pyarrow.parquet  # type: ignore[import-not-found]
    except ImportError:
        file.write_bytes(b"PAR1")
        with pytest.raises(ConfigError, match="pip install pyarrow"):
            opened(f"data={file}")
        return
    pyarrow.parquet.write_table(pyarrow.table({"text": ["abcd", None, "fghi"]}), file)
    assert [bytes(row.tolist()) for row in opened(f"data={file}").__getitems__([0, 1])[0]] == [b"abcd", b"fghi"]
    with pytest.raises(ConfigError, match=r"no column 'body'; set data_field to one of: \['text'\]"):
        opened(f"data={file}", "data_field=body")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["data=/no/such/place"], "there is no such file or folder here"),
        (["data_glob=*.nothing"], r"matches '\*\.nothing'; set data_glob"),
        (["data=no_such_package:build"], "importing it fails"),
    ],
)
def test_data_that_is_not_there_says_so(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        opened(*settings)


def test_two_nodes_with_different_text_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello hello")
    before = opened(f"data={tmp_path}", "data_glob=*.txt").fingerprint
    assert opened(f"data={tmp_path}", "data_glob=*.txt").fingerprint == before
    (tmp_path / "x.txt").write_text("hello jello")
    assert opened(f"data={tmp_path}", "data_glob=*.txt").fingerprint != before


@pytest.mark.parametrize("workers", [0, 2])
def test_the_feed_begins_at_any_step_and_keeps_the_deals_order(workers: int) -> None:
    data = opened("data=synthetic")
    (deal,) = deals(50, 1, 4, 2)
    feed = batches(data, deal, 5, CPU, workers)
    for step in range(5, 9):
        for share in deal.step(step):
            assert torch.equal(next(feed)[0], data.__getitems__(share.samples)[0])


def test_a_data_set_of_the_users_own_is_batched_as_torch_does() -> None:
    class Squares:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, number: int) -> dict[str, float]:
            return {"x": float(number), "y": float(number**2)}

    (deal,) = deals(10, 1, 4, 1)
    batch = next(batches(Squares(), deal, 0, CPU, 0))
    assert batch["x"].tolist() == [float(number) for number in deal.step(0)[0].samples]
    assert torch.equal(batch["y"], batch["x"] ** 2)


def test_the_default_is_this_pythons_own_library() -> None:
    assert len(open_data(Config())) == 3_000_000 // 65
