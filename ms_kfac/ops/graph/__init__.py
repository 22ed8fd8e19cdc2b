"""Building blocks of compiled graphs."""
