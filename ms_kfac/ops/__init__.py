"""Graph-mode operators: one file each, with its formula and its composed form."""
