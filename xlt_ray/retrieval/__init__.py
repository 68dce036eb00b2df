"""The retrieval stage: speech retrieves its spoken translation. SeqSim, baselines, rankings and R@k."""
