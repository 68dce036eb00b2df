"""Whisper models: files, front end, encoder, decoder, exports."""
