"""Numbers that are not finite in training: found, traced to a module, kept in a file."""
