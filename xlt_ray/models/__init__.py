"""Whisper: its files, its front end, its decoder, its exports."""
