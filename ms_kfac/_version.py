"""The package version. Both the build and the package read it from here."""

__version__ = "0.1.0"
