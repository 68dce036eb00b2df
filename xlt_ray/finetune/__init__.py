"""The finetune stage: trains the decoder on shards of frames to translate into a new language."""
