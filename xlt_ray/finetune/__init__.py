"""The finetune stage: shards of frames in, a decoder that writes a new language out."""
