"""Graph-mode operators, one file each, with the formula and a fallback (composed of MindSpore operators)."""
