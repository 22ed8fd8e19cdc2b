"""Networks, recipes and the commands that train and evaluate them; run from the root of the repository."""
