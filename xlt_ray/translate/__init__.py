"""The translate stage: translates stored encoder frames, and scores the hypotheses."""
