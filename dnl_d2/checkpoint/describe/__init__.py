"""Telling a model, its parameters and its names from a file of weights."""
