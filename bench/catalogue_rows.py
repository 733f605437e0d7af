"""A synthetic catalogue: a thousand users and nodes, files of all sizes, millions of replicas; ids follow from names."""

import uuid
from datetime import UTC, datetime
from hashlib import md5
from typing import Final

import attrs
import psycopg

__all__ = ["BIG_CHUNKS", "LARGE_CHUNKS", "NODES", "NOW", "OFFLINE", "USERS", "Shape", "fill", "named"]

USERS: Final = 1000
NODES: Final = 1000
OFFLINE: Final = 100
"""The last so many nodes are away; what they should forget has queued up."""
LARGE_CHUNKS: Final = 400
"""A file of 100 MB."""
BIG_CHUNKS: Final = 100_000
"""One file of 26 GB."""
NOW: Final = datetime(2026, 11, 1, tzinfo=UTC)


@attrs.frozen
class Shape:
    """How many files of each kind: one big, half of the chunks in large ones, the rest in files of one chunk. A quarter of the small files
    is one user's."""

    replicas: int

    @property
    def chunks(self) -> int:
        """With three replicas each."""
        return self.replicas // 3

    @property
    def large(self) -> int:
        """Files 1, 2, ..."""
        return self.chunks // 2 // LARGE_CHUNKS

    @property
    def small(self) -> int:
        """The files after these."""
        return self.chunks - BIG_CHUNKS - self.large * LARGE_CHUNKS

    @property
    def files(self) -> int:
        """All that are ready."""
        return 1 + self.large + self.small

    @property
    def open_uploads(self) -> int:
        """The files after all others; every tenth has expired."""
        return max(100, self.files // 100)

    @property
    def queued(self) -> int:
        """Deletions that wait for nodes that are away."""
        return self.replicas // 10


def named(kind: str, number: int) -> uuid.UUID:
    """The id of a user (u), node (n), file (f), upload (o) or deletion (d); in SQL: md5(kind || number)::uuid."""
    return uuid.UUID(md5(f"{kind}{number}".encode(), usedforsecurity=False).hexdigest())


def fill(dsn: str, shape: Shape) -> None:
    """Put all rows in, and let PostgreSQL count them. Blocking; a minute or two for three million replicas."""
    values = {
        "now": NOW, "users": USERS, "nodes": NODES, "offline": OFFLINE, "large": shape.large, "last": shape.files - 1,
        "open": shape.open_uploads, "queued": shape.queued, "large_chunks": LARGE_CHUNKS, "big_chunks": BIG_CHUNKS,
    }  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set session_replication_role = replica")  # no foreign keys are checked: ours are right
        connection.execute("set max_parallel_workers_per_gather = 0")
        for statement in _ROWS:
            connection.execute(statement, values)
        connection.execute("vacuum analyze")


_ROWS: Final[tuple[bytes, ...]] = (
    b"insert into master_keys values ('k', %(now)s)",
    b"""insert into users select md5('u' || i)::uuid, 'u' || i || '@example.com', 'x', %(now)s
        from generate_series(0, %(users)s - 1) i""",
    b"""insert into ledger_account (kind, owner, balance) select 'user', id::text, 100000000 from users""",
    b"""insert into nodes (id, peer_id, public_key, name, api_key_hash, challenged_at, registered_at, status, capacity_bytes, last_seen_at)
        select md5('n' || i)::uuid, 'peer' || i, sha256(('n' || i)::bytea), 'node ' || i, sha256(('k' || i)::bytea), %(now)s, %(now)s,
               'online', 1::bigint << 40, %(now)s
        from generate_series(0, %(nodes)s - 1) i""",
    b"""insert into dial_backs (node_id, tested_at, tested_by, reach, outcome, addresses)
        select md5('n' || i)::uuid, %(now)s - i * interval '1 second', 'peer0',
               case when i %% 2 = 0 then 'direct' else 'own_connection' end, 'reached', '{/ip4/192.0.2.1/tcp/4001}'
        from generate_series(0, %(nodes)s - 1) i""",
    b"""create temp table shape as select i as number, md5('f' || i)::uuid as id,
            case when i > %(last)s then 0 when i > %(large)s then 1 when i > 0 then %(large_chunks)s else %(big_chunks)s end as chunks,
            md5('u' || case when i %% 4 = 0 then 0 else i %% %(users)s end)::uuid as user_id
        from generate_series(0, %(last)s + %(open)s) i""",
    b"""insert into files (id, user_id, name, size_bytes, chunk_bytes, pieces, status, master_key_id, wrapped_key, wrap_secret, created_at,
                           ready_at)
        select id, user_id, 'file ' || number, chunks * 262144::bigint, 262144, 3,
               case when number <= %(last)s then 'ready' else 'uploading' end::file_status, 'k', sha256('w'), sha256('s'),
               %(now)s - number * interval '7 seconds', %(now)s
        from shape order by number""",
    b"""insert into uploads select md5('o' || number)::uuid, id, user_id,
               case when number <= %(last)s then 'completed' else 'open' end::upload_state, %(now)s,
               %(now)s + case when number %% 10 = 0 then interval '-1 hour' else interval '1 day' end
        from shape where number <= %(large)s or number > %(last)s""",
    b"""insert into chunks select f.id, i, md5(f.number || ' ' || i)::uuid, 262144, sha256(f.number::text::bytea)
        from shape f cross join lateral generate_series(0, f.chunks - 1) i order by f.number, i""",
    b"""insert into replicas (id, file_id, chunk_index, number, node_id, root, sealed_bytes, slot, stored_at)
        select md5(f.number || ' ' || i || ' ' || n)::uuid, f.id, i, n,
               md5('n' || (f.number * 7919::bigint + i / 64 * 104729 + n * 331) %% %(nodes)s)::uuid, sha256('r'), 262160,
               (f.number * 31::bigint + i * 7 + n * 11) %% 16384, %(now)s
        from shape f cross join lateral generate_series(0, f.chunks - 1) i cross join generate_series(0, 2) n
        order by f.number, i, n""",
    b"""insert into replica_deletions (replica_id, node_id, queued_at, next_try_at)
        select md5('d' || i)::uuid, md5('n' || case when i %% 300 = 0 then i / 300 %% (%(nodes)s - %(offline)s)
                                                    else %(nodes)s - 1 - i %% %(offline)s end)::uuid, %(now)s, %(now)s
        from generate_series(0, %(queued)s - 1) i""",
)
