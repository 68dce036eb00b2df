"""How a job runs: command line, cluster, pools, progress, tracking."""
