"""Limits that several hosts share, counted in Redis."""
