"""The databases that the store can live in: SQLite, PostgreSQL, and MySQL or MariaDB."""
