"""Faults in running jobs: what is killed, full, slow, gone or doubled, and whether anything is lost by it."""
