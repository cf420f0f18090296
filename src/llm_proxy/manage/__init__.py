"""The management API's client and its tables."""
