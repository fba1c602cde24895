"""``train`` of every recipe here; the library's defaults stand for what is not set."""

train = dict(output_dir="???")
