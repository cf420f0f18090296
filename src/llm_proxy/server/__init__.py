"""The gateway server: supervisor, control plane and gateway workers."""
