"""A fast, transparent LLM gateway that keeps API keys and hands out withering tokens."""

__version__ = "0.1.0"
