"""Residual networks: the CIFAR form and the ImageNet form."""
