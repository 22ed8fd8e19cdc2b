"""A small classifier of 14x14 MNIST."""
