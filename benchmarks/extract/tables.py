"""The table that is read: twelve columns, every value a function of the row's number and the seed.

``COLUMNS`` also says how the contents are compared: each column cast to the type it has in the database.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers.mariadb import MariaDB
    from tests.servers.postgres import Postgres

SEED = 20251004
TABLE = "events"
KEY = "id"
# DuckDB's name of each column's type, in the order of the table.
COLUMNS = {
    "id": "INTEGER",
    "user_id": "BIGINT",
    "kind": "SMALLINT",
    "score": "DOUBLE",
    "amount": "DECIMAL(12,2)",
    "flag": "BOOLEAN",
    "email": "VARCHAR",
    "token": "VARCHAR",
    "created_at": "TIMESTAMPTZ",
    "updated_at": "TIMESTAMP",
    "day": "DATE",
    "note": "VARCHAR",
}

# a, b and c are numbers below 2^32, odd multiples of the row's number; both databases do the same sums.
POSTGRES = """
CREATE TABLE {table} (
    id int PRIMARY KEY, user_id bigint NOT NULL, kind smallint NOT NULL, score double precision NOT NULL,
    amount numeric(12,2) NOT NULL, flag boolean NOT NULL, email text NOT NULL, token text NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamp NOT NULL, day date NOT NULL, note text
);
INSERT INTO {table}
SELECT n, 10000000000 + a % 1000000, b % 12, a::float8 / 4294967296 * 100, (c % 1000000000 - 100000000)::numeric / 100,
    b % 3 = 0, 'user' || a % 1000000 || '@example.com', md5(n || ':{seed}'),
    timestamptz '2023-01-01 00:00:00+00' + a * interval '1 millisecond' + (b % 1000) * interval '1 microsecond',
    timestamp '2023-06-01 00:00:00' + b * interval '1 millisecond' + (c % 1000) * interval '1 microsecond',
    date '2023-01-01' + (c % 730)::int,
    CASE WHEN n % 10 <> 0 THEN 'note ' || c % 100000 || ', "größer" as ever' END
FROM (
    SELECT n, n::bigint * 2654435761 % 4294967296 AS a, (n::bigint + {seed}) * 2246822519 % 4294967296 AS b,
        (n::bigint + {seed}) * 3266489917 % 4294967296 AS c
    FROM generate_series(1, {rows}) AS n
) AS numbers;
VACUUM ANALYZE {table};
CHECKPOINT;
"""
MARIADB = """
SET NAMES utf8mb4;
CREATE TABLE {table} (
    id INT PRIMARY KEY, user_id BIGINT NOT NULL, kind SMALLINT NOT NULL, score DOUBLE NOT NULL,
    amount DECIMAL(12,2) NOT NULL, flag TINYINT(1) NOT NULL, email VARCHAR(64) NOT NULL, token VARCHAR(32) NOT NULL,
    created_at DATETIME(6) NOT NULL, updated_at DATETIME(6) NOT NULL, day DATE NOT NULL, note TEXT
);
INSERT INTO {table}
SELECT n, 10000000000 + a % 1000000, b % 12, a / 4294967296e0 * 100, (c % 1000000000 - 100000000) / 100,
    b % 3 = 0, concat('user', a % 1000000, '@example.com'), md5(concat(n, ':{seed}')),
    timestamp'2023-01-01 00:00:00' + INTERVAL (a * 1000 + b % 1000) MICROSECOND,
    timestamp'2023-06-01 00:00:00' + INTERVAL (b * 1000 + c % 1000) MICROSECOND,
    date'2023-01-01' + INTERVAL (c % 730) DAY,
    CASE WHEN n % 10 <> 0 THEN concat('note ', c % 100000, ', "größer" as ever') END
FROM (
    SELECT CAST(seq AS SIGNED) AS n, CAST(seq AS SIGNED) * 2654435761 % 4294967296 AS a,
        (CAST(seq AS SIGNED) + {seed}) * 2246822519 % 4294967296 AS b,
        (CAST(seq AS SIGNED) + {seed}) * 3266489917 % 4294967296 AS c
    FROM seq_1_to_{rows}
) AS numbers;
ANALYZE TABLE {table};
"""


def fill_postgres(server: Postgres, rows: int, table: str = TABLE) -> None:
    """Creates and fills the table in PostgreSQL."""
    server.execute(POSTGRES.format(table=table, rows=rows, seed=SEED))


def fill_mariadb(server: MariaDB, rows: int, table: str = TABLE) -> None:
    """Creates and fills the table in MariaDB, past the time limit of ``server.execute``."""
    sql = MARIADB.format(table=table, rows=rows, seed=SEED)
    subprocess.run(_mariadb(server), input=sql, text=True, check=True, capture_output=True)


def dump_postgres(server: Postgres, path: Path, table: str = TABLE) -> None:
    """The table as tab-separated text, through the database's own client."""
    sql = f"SET timezone = 'UTC'; COPY (SELECT {', '.join(COLUMNS)} FROM {table}) TO STDOUT"
    with path.open("wb") as out:
        subprocess.run([server.psql, "-q", "-c", sql, server.url], stdout=out, check=True)


def dump_mariadb(server: MariaDB, path: Path, table: str = TABLE) -> None:
    """As ``dump_postgres``, null written alike."""
    sql = f"SELECT {', '.join(COLUMNS)} FROM {table}".replace("note", "ifnull(note, '\\\\N')")
    with path.open("wb") as out:
        command = [*_mariadb(server), "--quick", "--batch", "--raw", "--skip-column-names", "-e", sql]
        subprocess.run(command, stdout=out, check=True)


def _mariadb(server: MariaDB) -> list[str]:
    socket = f"--socket={server.socket}"
    return [server.client, "--no-defaults", socket, "-u", "root", "--default-character-set=utf8mb4", "shop"]
