"""The embed stage: the encoder runs once over every recording, and the frames are kept."""
