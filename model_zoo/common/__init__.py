"""Code shared by all network families: recipes, data, optimizers, training and metrics."""
