"""Time and memory of the public blocks and models beside ours, with the same weights."""
