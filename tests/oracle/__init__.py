"""References in float64 NumPy, written from the formulas and independent of the package and of MindSpore."""
