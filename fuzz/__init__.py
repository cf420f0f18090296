"""Coverage-guided fuzzing of everything that reads bytes of strangers; started by scripts/fuzz."""
