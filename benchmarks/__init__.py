"""Commands that measure, each printing ratios from one run."""
