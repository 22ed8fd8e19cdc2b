"""Capture: discovery of layers, and the taps that record their inputs and output gradients."""

from ms_kfac.capture.convolution import ConvolutionOperators
from ms_kfac.capture.dense import DenseOperators
from ms_kfac.capture.layer import Layer, LayerOperators
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.capture.normalization import ScaleOperators

__all__ = [
    "ConvolutionOperators",
    "DenseOperators",
    "Layer",
    "LayerOperators",
    "ScaleOperators",
    "register_layer",
]
