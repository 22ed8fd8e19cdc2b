"""Taps: which layers are watched, how, and what a person sees of it."""
