"""Study: which source language is best to fine-tune on, and whether that can be known before."""
