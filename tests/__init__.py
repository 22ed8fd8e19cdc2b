"""Tests: `oracle` holds the references, `support` the nets and loops, the rest mirrors the package."""
