"""The data plane: a reverse proxy on asyncio protocols."""
