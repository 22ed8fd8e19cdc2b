"""gpu/gpu/run_all.sh``."""
