"""PostgreSQL: the catalogue's engine (driver, pool, embedded server, migrations). The only importer of psycopg."""
