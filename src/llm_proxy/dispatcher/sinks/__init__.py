"""Where records are delivered to, one file a sink."""
