"""Operators of every step: preconditioning and the momentum rule."""
