"""Hostile input: valid files, changed at random, given to the readers of the package, and what came of each."""
