from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.errors import LedgerError
from llm_proxy.grants import LeaseUse
from llm_proxy.server.ledger import (
    LAST,
    MAX_SLOTS,
    SLOT_CELLS,
    USED,
    Ledger,
    boot_id,
    ledger_path,
    ledger_paths,
    lock_ledger,
    read_ledger,
    remove_drafts,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return ledger_path(tmp_path / "ledgers", "w-1")


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger.create(path, "w-1")
    yield ledger
    ledger.close()


def spend(ledger: Ledger, slot: int, *, count: int = 1, at_ms: int = 0) -> None:
    base = slot * SLOT_CELLS
    ledger.cells[base + USED] += count
    ledger.cells[base + LAST] = at_ms


def test_what_was_spent_is_read_by_lease(ledger: Ledger, path: Path) -> None:
    one, two = ledger.open_slot(7), ledger.open_slot(8)
    spend(ledger, one, count=3, at_ms=1_500)
    contents = read_ledger(path)
    assert contents.holder == "w-1"
    assert contents.is_original
    assert contents.is_of_this_boot
    assert contents.uses == {7: LeaseUse(7, 3, 1.5), 8: LeaseUse(8, 0, 0.0)}
    assert one != two


def test_a_slot_that_is_used_again_begins_with_nothing(ledger: Ledger, path: Path) -> None:
    slot = ledger.open_slot(7)
    spend(ledger, slot, count=3, at_ms=1_500)
    ledger.free_slot(slot)
    assert read_ledger(path).uses == {}
    assert ledger.open_slot(9) == slot
    assert read_ledger(path).uses == {9: LeaseUse(9, 0, 0.0)}


def test_cells_stay_valid_however_many_slots_are_opened(ledger: Ledger, path: Path) -> None:
    first, cells = ledger.open_slot(1), ledger.cells
    for lease_id in range(2, 5_001):
        ledger.open_slot(lease_id)
    cells[first * SLOT_CELLS + USED] += 1
    assert len(read_ledger(path).uses) == 5_000
    assert read_ledger(path).uses[1].used == 1


def test_a_full_ledger_says_so(ledger: Ledger) -> None:
    slots = [ledger.open_slot(lease_id) for lease_id in range(1, MAX_SLOTS + 1)]
    with pytest.raises(LedgerError, match="65536 leases are open"):
        ledger.open_slot(1)
    ledger.free_slot(slots[5])
    assert ledger.open_slot(1) == slots[5]


def test_file_is_private_and_takes_little_of_the_disk(ledger: Ledger, path: Path) -> None:
    ledger.open_slot(1)
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert found.st_blocks * 512 < 100_000


def test_it_is_locked_until_its_owner_closes_it(ledger: Ledger, path: Path) -> None:
    ledger.open_slot(7)
    assert lock_ledger(path) is None
    ledger.close()
    ledger.close()
    locked = lock_ledger(path)
    assert locked is not None
    assert lock_ledger(path) is None
    assert locked.read().uses == {7: LeaseUse(7, 0, 0.0)}
    locked.remove()
    locked.close()
    with pytest.raises(LedgerError, match="can't be read: No such file"):
        lock_ledger(path)


def test_another_ledger_of_that_name_is_refused(ledger: Ledger, path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    draft.touch()
    with pytest.raises(LedgerError, match="can't be made: File exists"):
        Ledger.create(path, "w-1")
    assert ledger_paths(path.parent) == {"w-1": path}
    remove_drafts(path.parent)
    assert not draft.exists()


def test_a_copy_is_not_exact(ledger: Ledger, path: Path) -> None:
    ledger.open_slot(7)
    copy = path.with_name("copy.ledger")
    shutil.copy(path, copy)
    assert read_ledger(copy).uses == read_ledger(path).uses
    assert not read_ledger(copy).is_original


def test_one_from_before_the_machine_started_is_not_exact(ledger: Ledger, path: Path) -> None:
    boot = boot_id().encode()
    with path.open("r+b") as file:
        place = file.read(4096).index(boot)
        file.seek(place)
        file.write(b"x" * len(boot))
    assert not read_ledger(path).is_of_this_boot


def test_boot_id_is_that_of_the_machine_and_not_of_the_process() -> None:
    command = [
        sys.executable,
        "-c",
        "from llm_proxy.server.ledger import boot_id; print(boot_id())",
    ]
    other = subprocess.run(command, check=True, capture_output=True, text=True)
    assert other.stdout.strip() == boot_id() != ""


@pytest.mark.parametrize("content", [b"", b"LLMPLED1", b"x" * 4096, b"LLMPLED1" + b"\0" * 5000])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.ledger"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="is damaged"):
        read_ledger(path)


def test_a_ledger_that_is_not_there_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="can't be read: No such file"):
        read_ledger(tmp_path / "w.ledger")


_ON_A_FULL_DISK = """
import sys
from pathlib import Path
from llm_proxy.errors import LedgerError
from llm_proxy.server.ledger import SLOT_CELLS, USED, Ledger, read_ledger
path = Path(sys.argv[1], "w.ledger")
ledger = Ledger.create(path, "w")
opened = 0
try:
    for lease_id in range(1, 60_000):
        ledger.cells[ledger.open_slot(lease_id) * SLOT_CELLS + USED] = 1
        opened += 1
except LedgerError as exc:
    print(exc)
assert 0 < opened == sum(use.used for use in read_ledger(path).uses.values())
ledger.free_slot(opened - 1)
assert ledger.open_slot(60_000) == opened - 1
"""


def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("a small file system of one's own is Linux's")
    command = 'mount -t tmpfs -o size=200k none "$1" && exec "$2" -c "$3" "$1"'
    shell = ["sh", "-c", command, "sh", str(tmp_path), sys.executable, _ON_A_FULL_DISK]
    found = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *shell], capture_output=True, text=True
    )
    if "unshare:" in found.stderr or "mount:" in found.stderr:
        pytest.skip("no file system may be mounted here")
    assert (found.returncode, found.stderr) == (0, "")
    assert "w.ledger can't grow (No space left on device); free some space" in found.stdout


_SPENDER = """
import sys
from pathlib import Path
from llm_proxy.server.ledger import LAST, SLOT_CELLS, USED, Ledger
ledger = Ledger.create(Path(sys.argv[1]), "w-1")
base = ledger.open_slot(7) * SLOT_CELLS
cells = ledger.cells
while True:
    cells[base + USED] += 1
    cells[base + LAST] = 1000 * cells[base + USED]
    sys.stdout.buffer.write(b".")  # a request that leaves
    sys.stdout.buffer.flush()
"""


def test_a_killed_process_leaves_all_that_it_spent(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SPENDER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    sent = len(process.stdout.read(2_000))
    process.kill()
    sent += len(process.stdout.read())
    process.wait()
    process.stdout.close()
    locked = lock_ledger(path)
    assert locked is not None
    use = locked.read().uses[7]
    locked.close()
    assert use.used in (sent, sent + 1)  # counted before it leaves
    assert use.last_used_at in (sent, sent + 1, sent - 1)


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"w\.ledger can't be made: "):
        Ledger.create(tmp_path / "file" / "w.ledger", "w")
