"""One module a target: `TARGET`, and the property that no input may break."""
