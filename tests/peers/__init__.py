"""The same network and batch in other libraries of curvature, where they are installed."""
