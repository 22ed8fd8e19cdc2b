"""Everything that is measured on a GPU: ``bash benchmarks/gpu/run_all.sh``."""
