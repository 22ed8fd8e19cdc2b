"""Approximations of a layer's Fisher block, one file each."""
