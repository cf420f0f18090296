"""Load generation and the mock upstream it measures against."""
