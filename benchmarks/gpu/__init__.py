"""GPU benchmarks: ``bash benchmarks/gpu/run_all.sh`` runs all of them."""
