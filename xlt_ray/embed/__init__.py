"""Stage embed: the encoder runs once over every recording, and keeps its frames."""
