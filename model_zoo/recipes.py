"""Lists the recipes of the zoo: ms-kfac-zoo recipes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from model_zoo.common.zoo_recipes import recipe_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one name per line; `train --recipe NAME` accepts them."""
    parser = argparse.ArgumentParser(
        prog="ms-kfac-zoo recipes", description="Lists the recipes of the zoo, for `train --recipe NAME`."
    )
    parser.parse_args(arguments)
    print("\n".join(recipe_names()))
    return 0
