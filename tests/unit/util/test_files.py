"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.util.files import replaced


def test_a_new_file_and_an_old_one_are_written(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    for text in ("one", "two"):
        with replaced(file) as new:
            assert new.parent == tmp_path, "of the same file system, or it cannot be renamed"
            new.write_text(text)
        assert file.read_text() == text
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, SystemExit])
@pytest.mark.parametrize("begun", [False, True])
def test_a_crash_in_the_block_leaves_the_old_file_and_nothing_beside_it(
    failure: type[BaseException], begun: bool, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(failure), replaced(file) as new:
        if begun:
            new.write_text("ne")
        raise failure
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o600)
    with pytest.raises(FileNotFoundError), replaced(file):
        pass
    assert file.read_text() == "old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_mode_stays(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(mode)
    with replaced(file) as new:
        new.write_text("new")
    assert file.stat().st_mode & 0o777 == mode


def test_a_new_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    with replaced(tmp_path / "one") as new:
        new.write_text("new")
    (tmp_path / "other").touch()
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "elsewhere/real", tmp_path / "link"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    with replaced(link) as new:
        new.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


def test_it_is_on_the_disk_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "file", list[tuple[bool, int]]()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((file.exists(), os.fstat(descriptor).st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replaced(file) as new:
        new.write_text("four")
    assert seen == [(False, 4)]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    """Both are in their blocks at once: each has a file of its own, and the last one counts."""
    file, meet = tmp_path / "file", threading.Barrier(2, timeout=30)
    paths = list[Path]()

    def write(letter: str) -> None:
        with replaced(file) as new, new.open("w") as out:
            paths.append(new)
            for _ in range(50):
                meet.wait()
                out.write(letter * 1000)
                out.flush()

    both = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len({*paths}) == 2
    assert file.read_text() in ("a" * 50_000, "b" * 50_000)
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.process
def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    file = small_disk / "file"
    file.write_text("old")
    with pytest.raises(OSError, match="No space left"), replaced(file) as new:
        new.write_bytes(b"x" * 1_000_000)
    assert file.read_text() == "old"
    assert list(small_disk.iterdir()) == [file]
    with replaced(file) as new:
        new.write_text("there is room again")
    assert file.read_text() == "there is room again"
