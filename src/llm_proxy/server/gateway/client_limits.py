"""Stands here for a moment only: import `llm_proxy.client_limits`, which every layer may."""

from llm_proxy.client_limits import ClientLimits as ClientLimits
