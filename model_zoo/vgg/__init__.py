"""VGG networks for 32x32 images."""
