"""The database: projects, tokens, changes."""
