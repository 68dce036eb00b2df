"""The study stage: which source language is best to fine-tune on, and whether this can be predicted."""
