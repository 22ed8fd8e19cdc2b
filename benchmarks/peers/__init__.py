"""Step costs of libraries of curvature, ours and others, each relative to its own framework's SGD."""
