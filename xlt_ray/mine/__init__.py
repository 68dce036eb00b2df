"""Recordings that translate each other are found in speech that is not parallel: candidates, exact scores, margins."""
