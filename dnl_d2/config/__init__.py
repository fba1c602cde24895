"""Config keys and files: defaults, loading, rules for values, batch sizes."""
