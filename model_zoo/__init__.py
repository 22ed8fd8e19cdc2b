"""Networks, recipes and commands of the zoo; run the commands from the root of the repository."""
