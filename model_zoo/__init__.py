"""Networks, recipes and commands of the zoo; `ms-kfac-zoo` runs the commands."""
