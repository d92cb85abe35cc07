"""The program that travels, with bytecode beside its sources: what reads which, and what is left of damage."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.conversation import converse
from engine.node import bytecode
from engine.transport import LocalTransport

PYTHON38 = Path("/root/.pyenv/versions/3.8.18/bin/python3")
IMPORT = """
import sys
compiled = []
sys.addaudithook(lambda event, said: compiled.append(said[1]) if event == "compile" else None)
sys.path.insert(0, sys.argv[1])
__import__(sys.argv[2])
print(sorted({name for name in compiled if str(name).startswith(sys.argv[1])}))
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    source, target = tmp_path / "source.zip", tmp_path / "target.zip"
    with zipfile.ZipFile(source, "w") as file:
        file.writestr("small.py", "ANSWER = 42\n")
    bytecode.add(str(source), str(target))
    return target


def imported(target: Path, python: str = sys.executable, module: str = "small") -> str:
    """What a Python that imports a module of the zip has to compile."""
    argv = [python, "-I", "-S", "-c", IMPORT, str(target), module]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_a_python_compiles_nothing_where_its_bytecode_is(target: Path) -> None:
    assert imported(target) == "[]"


def test_bytecode_of_another_python_is_passed_over_for_the_source(target: Path) -> None:
    with zipfile.ZipFile(target) as file:
        text, code = file.read("small.py"), file.read("small.pyc")
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("small.py", text)
        file.writestr("small.pyc", b"\0\0" + code[2:])
    assert imported(target) == f"['{target}/small.py']"


@pytest.mark.skipif(not PYTHON38.exists(), reason="no Python 3.8 on this machine")
def test_python_38_reads_the_sources_beside_the_bytecode_of_a_newer_one(target: Path) -> None:
    assert imported(target, str(PYTHON38)) == f"['{target}/small.py']"


def test_nothing_is_left_of_a_file_for_which_there_is_no_room(tmp_path: Path, target: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        bytecode.add(str(tmp_path / "source.zip"), str(tmp_path / "taken"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.zip", "taken", "target.zip"]


async def start(state: Path) -> Path:
    """Open a conversation and close it; the path of the program with its bytecode."""
    conversation = await converse(LocalTransport(), "localhost", str(state))
    assert conversation.hello.protocol == 1
    await conversation.close()
    (compiled,) = (state / "agent").glob(f"*.{sys.implementation.cache_tag}.zip")
    return compiled


@pytest.mark.parametrize("damage", [b"", b"00000000", b"not a zip at all"], ids=["empty", "torn", "foreign"])
async def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    compiled = await start(tmp_path)
    compiled.write_bytes(damage)
    await start(tmp_path)
    assert imported(compiled, module="engine.batch") == "[]"


async def test_bytecode_is_made_once(tmp_path: Path) -> None:
    made = (await start(tmp_path)).stat().st_mtime_ns
    assert (await start(tmp_path)).stat().st_mtime_ns == made


async def test_the_program_runs_from_its_sources_where_bytecode_cannot_be_kept(tmp_path: Path) -> None:
    compiled = await start(tmp_path)
    compiled.unlink()
    compiled.mkdir()
    assert (await start(tmp_path)).is_dir()
