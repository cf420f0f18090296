"""Processes that take recorded exchanges and deliver them."""
