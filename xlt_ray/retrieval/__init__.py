"""Speech finds its spoken translation: SeqSim, its baselines, rankings and R@k."""
