"""Code that several benchmarks and the tests share."""
