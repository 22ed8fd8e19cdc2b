"""Vision transformers with their recipes."""
