"""Host lists as people write and paste them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.hosts import HostEntry, expand, fold, host_mistake


def names(text: str) -> list[str]:
    return [entry.host for entry in expand(text)]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("gpu01", ["gpu01"]),
        ("gpu[01-03]", ["gpu01", "gpu02", "gpu03"]),
        ("gpu[8-11]", ["gpu8", "gpu9", "gpu10", "gpu11"]),
        ("gpu[098-101]", ["gpu098", "gpu099", "gpu100", "gpu101"]),
        ("gpu[01-02,07]", ["gpu01", "gpu02", "gpu07"]),
        ("gpu[01-02, 07]", ["gpu01", "gpu02", "gpu07"]),
        ("10.0.0.[1-3]", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("gpu[1-2]-ib.lan", ["gpu1-ib.lan", "gpu2-ib.lan"]),
        ("node[1-2],login", ["node1", "node2", "login"]),
        ("a, b  c", ["a", "b", "c"]),
        ("a\r\n\r\n  b\r\n", ["a", "b"]),
        ("# all of them\na # the first\n#b\n", ["a"]),
        ("fe80::1%eth0, ::1", ["fe80::1%eth0", "::1"]),
        ("", []),
    ],
)
def test_a_list_expands_to_its_hosts_in_order(text: str, hosts: list[str]) -> None:
    assert names(text) == hosts


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("gpu01 slots=8", HostEntry(host="gpu01", slots=8)),
        ("gpu01:8", HostEntry(host="gpu01", slots=8)),
        ("gpu01 slots=4 max_slots=8", HostEntry(host="gpu01", slots=4)),
        ("gpu01 max-slots=8", HostEntry(host="gpu01")),
        ("ml@gpu01", HostEntry(host="gpu01", user="ml")),
        ("ml@gpu01 port=2222 slots=2", HostEntry(host="gpu01", user="ml", port=2222, slots=2)),
        ("ssh://ml@gpu01:2222", HostEntry(host="gpu01", user="ml", port=2222)),
        ("[::1]:4", HostEntry(host="::1", slots=4)),
    ],
)
def test_a_hostfile_line_keeps_what_it_says_about_its_host(text: str, entry: HostEntry) -> None:
    assert expand(text) == [entry]


def test_slots_after_a_range_are_for_every_host_of_it() -> None:
    assert expand("gpu[1-2] slots=4\ngpu3 slots=2") == [
        HostEntry(host="gpu1", slots=4),
        HostEntry(host="gpu2", slots=4),
        HostEntry(host="gpu3", slots=2),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\ngpu[01-", "line 2, column 4: an unmatched '['"),
        ("gpu01]", "column 6: an unmatched ']'"),
        ("gpu[a-c]", "'a-c' is no range"),
        ("gpu[]", "'' is no range"),
        ("gpu[3-1]", "3-1 runs backwards"),
        ("gpu[1-08]", "1 and 08 differ in width"),
        ("gpu[1-999999999]", "makes 999,999,999 hosts; at most 16,384"),
        ("a[1-16384] b", "makes 16,385 hosts"),
        ("a[1-999][1-999][1-999][1-999][1-999]", "at most 16,384"),
        ("a\nb a", "line 2, column 3: a is named twice (first on line 1)"),
        ("slots=8", "without a host before it"),
        ("a slot=8", "unknown option 'slot=8'"),
        ("a slots=0", "'0' is not a slot count"),
        ("a:many", "'many' is not a slot count"),
        ("a port=99999", "'99999' is not a port"),
        ("ml@a:8", "8 may be slots or the ssh port"),
        ("a:22", "22 may be slots or the ssh port"),
        ("a:2222", "2222 may be slots or the ssh port"),
        ("-oProxyCommand=x", "unknown option"),
        ("-x", "starts with '-'"),
        ("a;b", "contains ';'"),
        ("$(id)", "contains '$'"),
        ("a`b", "contains '`'"),
        ("@a", "the user is wrong"),
        ("a\u202eb", "contains '\\u202e'"),
        ("fe80::[1-3]", "column 1:"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        expand(text)
    assert said in str(caught.value)
    assert "host list, line " in caught.value.text


def test_localhost_may_be_named_more_than_once() -> None:
    assert names("localhost localhost") == ["localhost", "localhost"]


def test_the_largest_list_expands_in_a_moment() -> None:
    start = time.perf_counter()
    assert len(expand("n[00001-16384]")) == 16_384
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["gpu01", "gpu02", "gpu03"], "gpu[01-03]"),
        (["gpu01", "gpu02", "gpu07"], "gpu[01-02,07]"),
        (["gpu9", "gpu10"], "gpu[9-10]"),
        (["gpu09", "gpu10", "login"], "gpu[09-10],login"),
        (["n1-ib0", "n2-ib0"], "n[1-2]-ib0"),
        (["10.0.0.1", "10.0.0.2"], "10.0.0.[1-2]"),
        (["localhost", "localhost"], "localhost,localhost"),
        (["gpu2", "gpu1"], "gpu[2,1]"),
        (["::1", "::2"], "::1,::2"),
        (["a"], "a"),
        ([], ""),
    ],
)
def test_hosts_fold_to_a_short_text(hosts: list[str], text: str) -> None:
    assert fold(hosts) == text


HOSTS = st.from_regex(r"[a-c]{1,2}[0-9]{0,3}(-[a-b][0-9]{1,2})?(\.lan)?", fullmatch=True)


@given(st.lists(HOSTS, unique=True, max_size=30))
def test_a_folded_list_expands_to_the_same_hosts_in_the_same_order(hosts: list[str]) -> None:
    assert names(fold(hosts)) == hosts


@given(st.integers(0, 1200), st.integers(1, 60), st.integers(0, 5))
def test_a_run_of_numbers_folds_and_expands_again(first: int, count: int, width: int) -> None:
    hosts = [f"n{value:0{width}d}x" for value in range(first, first + count)]
    assert names(fold(hosts)) == hosts


@given(st.text(max_size=60))
def test_any_text_gives_hosts_that_ssh_takes_or_a_request_error(text: str) -> None:
    try:
        entries = expand(text)
    except RequestError:
        return
    assert all(host_mistake(entry.host) == "" for entry in entries)
