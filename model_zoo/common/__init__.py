"""What every family of the zoo shares: recipes, data, optimizers, training, figures."""
