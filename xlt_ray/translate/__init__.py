"""Stage translate: kept encoder frames in, translations and their scores out."""
