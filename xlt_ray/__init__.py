"""Cross-lingual transfer in speech translation models: measured, transferred and kept, on Ray clusters."""

__version__ = "0.1.0"
