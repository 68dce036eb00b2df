"""Search: which settings gain most on a new target and keep most of the old, by trials on the dev split."""
