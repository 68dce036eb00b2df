"""What every test needs: one thread, no network, no usage statistics, no cluster or server of somebody else."""

import os

from hypothesis import settings

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
# How long an example takes says nothing on a machine that is shared.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
