"""HTTP/1.1 heads, framing and pooled connections."""
