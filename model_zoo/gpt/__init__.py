"""A small GPT on bytes with its recipes."""
