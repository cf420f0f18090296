"""A process that spends a token as a worker does: `DATABASE LEDGER HOLDER`.

For each request it counts a permit in its ledger and then writes a byte, until there is no permit
any more for good.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from llm_proxy.database_url import parse_database
from llm_proxy.grants import Lease, LeaseUse
from llm_proxy.server.ledger import LAST, SLOT_CELLS, USED, Ledger
from llm_proxy.store.database import Store
from llm_proxy.store.leases import extend_lease, give_back_leases, settle_leases, take_lease

TOKEN = "t-1"


def main() -> None:
    database, path, holder = sys.argv[1:]
    store = Store(parse_database(database), cipher=None, patience_s=10)
    store.open(migrate=False)
    ledger = Ledger.create(Path(path), holder)
    while True:
        lease = take_lease(store, TOKEN, 40, host="h", holder=holder, at=datetime.now(UTC))
        if isinstance(lease, Lease):
            _spend(store, ledger, lease)
        elif lease is None or lease.is_final:
            return
        else:
            time.sleep(0.01)


def _spend(store: Store, ledger: Ledger, lease: Lease) -> None:
    slot = ledger.open_slot(lease.id)
    used = 0
    for _ in range(3):
        assert lease.granted is not None
        while used < lease.granted:
            used += 1
            ledger.cells[slot * SLOT_CELLS + USED] = used
            ledger.cells[slot * SLOT_CELLS + LAST] = time.time_ns() // 1_000_000
            os.write(1, b".")
        use = LeaseUse(lease.id, used, time.time())
        settle_leases(store, [use])
        more = extend_lease(store, use, 10)
        if not isinstance(more, Lease):
            break
        lease = more
    give_back_leases(store, [LeaseUse(lease.id, used, time.time())])
    ledger.free_slot(slot)


if __name__ == "__main__":
    main()
