"""The atomic directory: visible content at each step, file modes, and failures."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tunnel.atomic_file import NamedFile
from tunnel.errors import OutputError
from tunnel.svid.atomic_directory import GRACE, AtomicDirectory, ReplaceResult

START = 1_700_000_000.0


class Clock:
    """A wall clock, which may be set, and a monotonic clock, which may not."""

    def __init__(self) -> None:
        self.now = START
        self.set_by = 0.0

    def __call__(self) -> float:
        self.now += 0.001  # two updates never have one name
        return self.now + self.set_by

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "tls"


@pytest.fixture
def directory(place: Path, clock: Clock) -> Iterator[AtomicDirectory]:
    with closing(AtomicDirectory(str(place), None, clock, clock.monotonic)) as directory:
        yield directory


def update(number: int, *more: str) -> list[NamedFile]:
    public = [NamedFile(name, f"{name} {number}".encode(), 0o644) for name in ("svid.pem", *more)]
    return [*public, NamedFile("key.pem", f"key {number}".encode(), 0o600)]


def seen(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.iterdir() if not path.name.startswith(".")}


def update_directories(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.is_dir() and not path.is_symlink())


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size`; what does not fit is refused as a full disk refuses it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_layout_is_that_of_kubernetes(directory: AtomicDirectory, place: Path) -> None:
    assert directory.replace(update(1)) == ReplaceResult()
    (name,) = update_directories(place)
    assert name.startswith("..2023_11_14_22_13_20.")
    assert os.readlink(place / "..data") == name
    assert os.readlink(place / "svid.pem") == "..data/svid.pem"
    assert seen(place) == {"svid.pem": "svid.pem 1", "key.pem": "key 1"}


@pytest.mark.parametrize("mask", [0, 0o077])
def test_no_umask_widens_or_narrows_a_mode(tmp_path: Path, mask: int) -> None:
    place = tmp_path / "new"
    with umask(mask), closing(AtomicDirectory(str(place), None)) as directory:
        directory.replace(update(1), NamedFile(str(tmp_path / "both.pem"), b"both", 0o640))
    paths = (place, place / "..data", place / "svid.pem", place / "key.pem", tmp_path / "both.pem")
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o755, 0o755, 0o644, 0o600, 0o640]


def test_modes_and_groups_are_right_before_the_first_byte(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = 12345 if os.geteuid() == 0 else os.getegid()
    written: list[tuple[int, int, bytes]] = []
    write = os.write

    def spy(descriptor: int, data: bytes) -> int:
        status = os.fstat(descriptor)
        written.append((stat.S_IMODE(status.st_mode), status.st_gid, bytes(data)))
        return write(descriptor, data[:5])  # a disk may take less than it is given

    monkeypatch.setattr(os, "write", spy)
    with closing(AtomicDirectory(str(place), group)) as directory:
        directory.replace(update(1), NamedFile(str(place / "both.pem"), b"combined", 0o640))
    assert {(mode, owner) for mode, owner, data in written if data.startswith(b"key")} == {(0o600, group)}
    assert {(mode, owner) for mode, owner, data in written if data.startswith(b"svid")} == {(0o644, group)}
    assert {(mode, owner) for mode, owner, data in written if data.startswith(b"comb")} == {(0o640, group)}
    assert (place / "both.pem").read_bytes() == b"combined"


def test_files_that_an_update_lacks_are_removed(directory: AtomicDirectory, place: Path) -> None:
    directory.replace(update(1, "bundle.b.test.pem"))
    (place / "notes.txt").write_text("ours to leave alone")
    (place / "elsewhere").symlink_to("notes.txt")
    directory.replace(update(2))
    assert seen(place) == {
        "svid.pem": "svid.pem 2",
        "key.pem": "key 2",
        "notes.txt": "ours to leave alone",
        "elsewhere": "ours to leave alone",
    }


def test_a_reader_that_resolved_the_link_can_continue(directory: AtomicDirectory, place: Path, clock: Clock) -> None:
    directory.replace(update(1))
    resolved = (place / "..data").resolve()
    clock.now += 3600
    directory.replace(update(2))
    assert (resolved / "key.pem").read_text() == "key 1"
    directory.replace(update(3))
    assert (resolved / "key.pem").read_text() == "key 1"  # replaced twice, and not yet GRACE ago
    clock.now += GRACE
    directory.replace(update(4))
    assert not resolved.exists()
    assert len(update_directories(place)) == 2


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_between_two_updates_removes_nothing_early(
    directory: AtomicDirectory, place: Path, clock: Clock, step: float
) -> None:
    directory.replace(update(1))
    resolved = (place / "..data").resolve()
    directory.replace(update(2))
    clock.set_by = step
    directory.replace(update(3))
    assert (resolved / "key.pem").read_text() == "key 1"
    clock.now += GRACE
    directory.replace(update(4))
    assert not resolved.exists()


def test_an_update_at_the_very_time_of_an_earlier_one_finds_another_name(
    directory: AtomicDirectory, place: Path, clock: Clock
) -> None:
    directory.replace(update(1))
    clock.now -= 0.001 * round((clock.now - START) / 0.001)  # set back to the start
    directory.replace(update(2))
    assert seen(place)["key.pem"] == "key 2"
    assert len(update_directories(place)) == 2


def test_leftovers_of_a_killed_writer_are_removed(directory: AtomicDirectory, place: Path, clock: Clock) -> None:
    directory.replace(update(1))
    torn = place / "..2020_01_01_00_00_00.000000000"
    torn.mkdir()
    (torn / "key.pem").write_text("half a k")
    os.utime(torn, (START - 1000, START - 1000))
    (place / "..data_tmp").symlink_to(torn.name)
    directory.replace(update(2))
    assert not torn.exists()
    assert seen(place)["key.pem"] == "key 2"
    assert not os.path.lexists(place / "..data_tmp")


def test_plain_files_of_these_names_are_replaced_and_named(directory: AtomicDirectory, place: Path, tmp_path: Path) -> None:
    (place / "svid.pem").write_text("a foreign file")
    (tmp_path / "precious").write_text("precious")
    (place / "key.pem").symlink_to(tmp_path / "precious")
    assert directory.replace(update(1)).foreign == ("svid.pem", "key.pem")
    assert seen(place) == {"svid.pem": "svid.pem 1", "key.pem": "key 1"}
    assert (tmp_path / "precious").read_text() == "precious"
    assert directory.replace(update(2)) == ReplaceResult()


@pytest.mark.parametrize("name", ["svid.pem", "..data"])
def test_a_directory_at_the_name_of_a_file_is_refused(directory: AtomicDirectory, place: Path, name: str) -> None:
    (place / name).mkdir()
    with pytest.raises(OutputError, match=rf"cannot replace {place}/{name}: is a directory"):
        directory.replace(update(1))
    assert [path.name for path in place.iterdir()] == [name]


def test_a_directory_has_one_writer(directory: AtomicDirectory, place: Path) -> None:
    with pytest.raises(OutputError, match="is locked by another process: expected one writer"):
        AtomicDirectory(str(place), None)
    directory.close()
    again = AtomicDirectory(str(place), None)
    directory._descriptor = again._descriptor  # for the fixture to close


@pytest.mark.parametrize("is_first", [True, False])
def test_a_full_disk_changes_nothing(directory: AtomicDirectory, place: Path, tmp_path: Path, is_first: bool) -> None:
    both = str(tmp_path / "both.pem")
    if not is_first:
        directory.replace(update(1), NamedFile(both, b"both 1", 0o600))
    before = sorted(os.listdir(place)), seen(place), sorted(os.listdir(tmp_path))
    big = [*update(2, "bundle.new.pem"), NamedFile("bundle.pem", b"x" * 5000, 0o644)]
    with full_disk(4096), pytest.raises(OutputError, match=rf"cannot write bundle\.pem in {place}: file too large"):
        directory.replace(big, NamedFile(both, b"both 2", 0o600))
    with full_disk(4096), pytest.raises(OutputError, match=rf"cannot write {both}: file too large"):
        directory.replace(update(2), NamedFile(both, b"x" * 5000, 0o600))
    assert (sorted(os.listdir(place)), seen(place), sorted(os.listdir(tmp_path))) == before


def cannot(*_arguments: object, **_more: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("fchown", "cannot set the group of files to 7: only root and members of the group may"),
        ("mkdir", "cannot replace the files in {}: operation not permitted"),
        ("symlink", "cannot replace the files in {}: operation not permitted"),
        ("replace", "cannot replace the files in {}: operation not permitted"),
    ],
)
def test_a_forbidden_operation_is_one_error_and_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    with closing(AtomicDirectory(str(place), 7)) as directory:
        monkeypatch.setattr(os, call, cannot)
        with pytest.raises(OutputError) as refused:
            directory.replace(update(1))
        assert str(refused.value) == words.format(place)
        assert [name for name in os.listdir(place) if name != "..data_tmp"] == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("a file"), "cannot use directory {}: not a directory"),
        (lambda path: path.symlink_to("/dev/null"), "cannot use directory {}: not a directory"),
    ],
)
def test_a_path_that_is_no_directory_is_refused(place: Path, make: Callable[[Path], object], words: str) -> None:
    make(place)
    with pytest.raises(OutputError) as refused:
        AtomicDirectory(str(place), None)
    assert str(refused.value) == words.format(place)


def test_no_content_is_in_a_repr() -> None:
    assert "secret" not in repr(NamedFile("key.pem", b"secret", 0o600))


# -- the path leads to another directory


def rename(place: Path) -> None:
    place.rename(place.with_name("aside"))


def remove(place: Path) -> None:
    shutil.rmtree(place)


def recreate(place: Path) -> None:
    remove(place)
    place.mkdir()


def exchange(place: Path) -> None:
    rename(place)
    shutil.copytree(place.with_name("aside"), place, symlinks=True)


def point_elsewhere(place: Path) -> None:
    """What is a link afterwards leads to another directory."""
    rename(place)
    place.with_name("other").mkdir()
    place.symlink_to("other")


def remove_parent(place: Path) -> None:
    shutil.rmtree(place.parent)


MOVES = [
    (rename, "{} is missing"),
    (remove, "{} is missing"),
    (remove_parent, "{} is missing"),
    (recreate, "{} was replaced by another directory"),
    (exchange, "{} was replaced by another directory"),
    (point_elsewhere, "{} was replaced by another directory"),
]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return tmp_path / "a" / "tls"


@pytest.mark.parametrize(("move", "fault"), MOVES, ids=[move.__name__ for move, _ in MOVES])
def test_the_next_update_goes_to_where_the_path_leads(deep: Path, move: Callable[[Path], None], fault: str) -> None:
    with closing(AtomicDirectory(str(deep), None)) as directory:
        directory.replace(update(1))
        move(deep)
        assert directory.find_fault() == fault.format(deep)
        assert directory.replace(update(2)).fault == fault.format(deep)
        assert seen(deep) == {"svid.pem": "svid.pem 2", "key.pem": "key 2"}
        assert directory.find_fault() == ""
        assert directory.replace(update(3)) == ReplaceResult()
        assert stat.S_IMODE(deep.stat().st_mode) == 0o755
        with pytest.raises(OutputError, match="is locked by another process"):
            AtomicDirectory(str(deep), None)


def test_a_directory_that_was_left_may_be_kept_by_another_process(deep: Path) -> None:
    with closing(AtomicDirectory(str(deep), None)) as directory:
        rename(deep)
        directory.replace(update(1))
        AtomicDirectory(str(deep.with_name("aside")), None).close()


def test_the_path_is_checked_before_the_first_update_too(directory: AtomicDirectory, place: Path) -> None:
    rename(place)
    assert directory.replace(update(1)).fault == f"{place} is missing"
    assert seen(place)["key.pem"] == "key 1"
    assert list(place.with_name("aside").iterdir()) == []


def test_a_file_in_place_of_the_directory_is_reported_until_it_is_removed(directory: AtomicDirectory, place: Path) -> None:
    directory.replace(update(1))
    rename(place)
    place.write_text("in the way")
    for _ in range(2):
        assert directory.find_fault() == f"{place} is not a directory"
        with pytest.raises(OutputError, match=rf"^cannot use directory {place}: not a directory$"):
            directory.replace(update(2))
    place.unlink()
    assert directory.replace(update(2)).fault == f"{place} is missing"
    assert seen(place)["key.pem"] == "key 2"


def test_a_new_directory_that_cannot_be_written_is_reported(directory: AtomicDirectory, place: Path) -> None:
    directory.replace(update(1))
    recreate(place)
    with full_disk(3), pytest.raises(OutputError, match="file too large"):
        directory.replace(update(2))
    assert directory.find_fault() == f"{place}/..data is missing"
    directory.replace(update(2))
    assert seen(place)["key.pem"] == "key 2"


def test_a_working_directory_that_was_moved_is_left_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with closing(AtomicDirectory("tls", None)) as directory:
        directory.replace(update(1), NamedFile("both.pem", b"both 1", 0o600))
        shutil.rmtree(here)
        here.mkdir()
        assert directory.find_fault() == "tls is missing"
        directory.replace(update(2), NamedFile("both.pem", b"both 2", 0o600))
    assert (here / "both.pem").read_text() == "both 2"
    assert seen(here / "tls")["key.pem"] == "key 2"


def rewrite_in_place(place: Path) -> None:
    (place / "svid.pem").write_text("another 1!")  # of the same size
    os.utime(place / "svid.pem", ns=(1, 1))  # two writes within one tick of the kernel have one time


def rename_over(place: Path) -> None:
    (place / "new").write_text("a plain file")
    (place / "new").rename(place / "key.pem")


DAMAGES = [
    (lambda place: (place / "svid.pem").unlink(), "svid.pem is missing"),
    (lambda place: (place / "..data").unlink(), "..data is missing"),
    (lambda place: shutil.rmtree((place / "..data").resolve()), "..data/svid.pem is missing"),
    (lambda place: (place / "..data" / "key.pem").unlink(), "..data/key.pem is missing"),
    (rewrite_in_place, "..data/svid.pem was changed by another process"),
    (rename_over, "key.pem was replaced by another process"),
    (lambda place: (place.parent / "both.pem").unlink(), "both.pem is missing"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_single_file_that_is_missing_or_changed_is_named(
    directory: AtomicDirectory, place: Path, damage: Callable[[Path], object], words: str
) -> None:
    both = NamedFile(str(place.parent / "both.pem"), b"both", 0o600)
    directory.replace(update(1), both)
    damage(place)
    name = f"{place.parent if words.startswith('both') else place}/{words}"
    assert directory.find_fault() == name
    assert directory.replace(update(1), both).fault == name
    assert directory.find_fault() == ""
    assert seen(place) == {"svid.pem": "svid.pem 1", "key.pem": "key 1"}
    assert (place.parent / "both.pem").read_text() == "both"


def test_a_check_never_sees_half_of_an_update(directory: AtomicDirectory) -> None:
    directory.replace(update(0))
    faults: list[str] = []
    stopping = threading.Event()

    def look() -> None:
        while not stopping.is_set():
            faults.append(directory.find_fault())

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(1, 40):
        directory.replace(update(number))
    stopping.set()
    looking.join()
    assert set(faults) == {""}
