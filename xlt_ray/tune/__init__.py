"""The tune stage: searches, with trials on the dev split, for settings with the best gain and retention."""
