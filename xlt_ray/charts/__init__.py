"""The style of plots, and the charts of the report."""
