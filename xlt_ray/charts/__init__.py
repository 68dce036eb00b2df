"""Pictures: the style of the plots and the planes of the report."""
