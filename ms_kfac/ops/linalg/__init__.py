"""Linear algebra in graph mode, without knowledge of layers."""
