"""A small convolutional network for 32x32 images."""
