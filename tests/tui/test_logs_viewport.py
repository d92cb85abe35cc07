"""A window over lines: it follows, stops when the user moves up, and then stays where it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.tui.logs_made_up import BytesSource
from tui.logs.lines import AllLines, Line
from tui.logs.viewport import Viewport


def shown(view: Viewport) -> list[str]:
    return [f"{line.raw.decode()}.{part}" if part else line.raw.decode() for line, part in view.rows()]


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, first + count))


def view_of(source: BytesSource, height: int = 3) -> Viewport:
    view = Viewport(AllLines(source))
    view.height = height
    return view


def write(source: BytesSource, more: bytes) -> None:
    source.data += more
    source.poll()


def test_following_shows_the_end_as_it_grows() -> None:
    source = BytesSource(numbered(5))
    view = view_of(source)
    assert shown(view) == ["2", "3", "4"]
    write(source, b"5\n6\n")
    assert shown(view) == ["4", "5", "6"]


def test_a_log_shorter_than_the_view_is_shown_from_its_first_line() -> None:
    view = view_of(BytesSource(numbered(2)), height=5)
    assert shown(view) == ["0", "1"]
    assert shown(view_of(BytesSource(), height=5)) == []


def test_a_paused_view_never_moves() -> None:
    source = BytesSource(numbered(5))
    view = view_of(source)
    view.move(-1)
    before = shown(view)
    for _ in range(50):
        write(source, numbered(7, first=100))
        assert shown(view) == before == ["1", "2", "3"]


def test_moving_down_at_the_end_follows_again() -> None:
    source = BytesSource(numbered(9))
    view = view_of(source)
    view.move(-4)
    view.move(2)
    assert (shown(view), view.following) == (["4", "5", "6"], False)
    view.move(10)
    assert (shown(view), view.following) == (["6", "7", "8"], False)
    view.move(1)
    assert view.following


def test_the_first_line_is_the_end_of_the_way_up() -> None:
    view = view_of(BytesSource(numbered(9)))
    view.move(-100)
    assert shown(view) == ["0", "1", "2"]
    view.move(1)
    view.to_start()
    assert shown(view) == ["0", "1", "2"]


def test_a_line_is_brought_into_view_only_if_it_is_not_there() -> None:
    view = view_of(BytesSource(b"".join(b"%02d\n" % n for n in range(40))), height=6)
    view.to(3 * 36)
    assert shown(view)[0] == "34"
    view.to(3 * 10)
    assert shown(view) == ["08", "09", "10", "11", "12", "13"]
    view.to_share(0.5)
    assert shown(view)[0] == "20"


def test_wrapped_lines_take_rows() -> None:
    view = view_of(BytesSource(b"a\nbbb\ncc\n"), height=3)
    view.parts = lambda line: len(line.raw)
    assert shown(view) == ["bbb.2", "cc", "cc.1"]
    view.move(-2)
    assert shown(view) == ["bbb", "bbb.1", "bbb.2"]
    view.move(1)
    assert shown(view) == ["bbb.1", "bbb.2", "cc"]


@given(
    st.lists(st.integers(1, 4), max_size=12),
    st.lists(st.integers(-9, 9), max_size=12),
    st.integers(1, 7),
)
def test_any_way_of_moving_shows_a_piece_of_the_whole(sizes: list[int], moves: list[int], height: int) -> None:
    source = BytesSource(b"".join(b"%d" % (n % 10) * size + b"\n" for n, size in enumerate(sizes)))
    view = Viewport(AllLines(source), lambda line: len(line.raw))
    view.height = height
    whole = [(line.at, part) for line in AllLines(source).forward(0, 100) for part in range(len(line.raw))]
    place = max(0, len(whole) - height)
    following = True
    for move in moves:
        view.move(move)
        if move < 0:
            place, following = max(0, place + move), False
        elif not following:
            following = place >= len(whole) - height
            place = max(0, min(place + move, len(whole) - height))
        rows: list[tuple[Line, int]] = view.rows()
        assert [(line.at, part) for line, part in rows] == whole[place : place + height]
        assert view.following is following
