"""The control plane: management API and probes."""
