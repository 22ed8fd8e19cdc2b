"""The deep auto-encoder of MNIST."""
