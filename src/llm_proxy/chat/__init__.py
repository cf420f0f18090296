"""Talking with a model through the proxy: the client, the conversation and the terminal."""
