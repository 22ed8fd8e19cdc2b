"""Images per second of every data pipeline of the zoo, alone and with the network that reads it.

    python benchmarks/data_throughput.py --data-dir DIR [--rounds 5] [--seconds 3] [--only NAMES] [--output F]

DIR holds mnist, cifar-10-batches-bin and cifar10-images (the JPEGs in class folders). Three rates per
pipeline, as medians over rounds with their quartiles:

* the pipeline alone, from the first image, with nothing else running;
* the network alone: training steps of the K-FAC recipe on one fixed batch. The median step has no refresh and
  is therefore the fastest one, with which the data must keep up;
* both: the same steps on the batches of the pipeline.

ImageNet-sized images are real JPEGs of CIFAR-10, enlarged to 500x375 pixels, the average size in ImageNet.
MindRecord files are converted from the same folders.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model_zoo.common.environment import limit_onednn  # noqa: E402

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.comparison.train import endless_batches  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.data.cifar10 import DEVIATION, MEAN  # noqa: E402
from model_zoo.common.data.pipelines import load_data  # noqa: E402
from model_zoo.common.data.record_writer import Conversion, convert  # noqa: E402
from model_zoo.common.factory import build  # noqa: E402
from model_zoo.common.recipe import Recipe, load_recipe, parse_recipe  # noqa: E402
from model_zoo.common.schedules import Constant  # noqa: E402

IMAGENET_PIXELS = (500, 375)
WARM_UP_STEPS = 3

RESNET20 = "resnet/resnet20_cifar10_kfac.yaml"
SMALL = {"image_size": 32, "resize": 32, "least_area": 0.25, "mean": MEAN, "deviation": DEVIATION}
LARGE: dict[str, Any] = {"batch_size": 16}
# Per pipeline: the recipe, the data folder, and changes to the recipe's data section.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits": ("resnet/resnet20_digits_kfac.yaml", "", {}),
    "cifar10": (RESNET20, "data", {}),
    "mnist": ("autoencoder/autoencoder_mnist_kfac.yaml", "data", {}),
    "mnist14": ("mlp/mlp_mnist14_kfac.yaml", "data", {}),
    "image_folder 32": (RESNET20, "data/cifar10-images", {"name": "image_folder", **SMALL}),
    "mindrecord 32": (RESNET20, "made/records 32", {"name": "mindrecord", **SMALL}),
    "image_folder 224": (RESNET20, "made/images 224", {"name": "image_folder", **LARGE}),
    "mindrecord 224": (RESNET20, "made/records 224", {"name": "mindrecord", **LARGE}),
}


def case_recipe(name: str) -> Recipe:
    """The recipe of a pipeline; ImageNet-sized images are read by ResNet-50."""
    path, _, changes = CASES[name]
    recipe = load_recipe(ROOT / "model_zoo" / path)
    content = {
        section: {key: value for key, value in dataclasses.asdict(getattr(recipe, section)).items()}
        for section in ("network", "data", "optimizer")
    }
    if changes:
        content["data"] = {"batch_size": recipe.data.batch_size, **changes}
    if name.endswith("224"):
        content["network"] = {"name": "imagenet_resnet", "depth": 50}
    return parse_recipe({**content, "epochs": 1})


def enlarge_images(source: Path, folder: Path, images: int) -> None:
    """Writes ImageNet-sized images: equally many per class, and one test image per class.

    Args:
        source: class folders of small JPEGs.
        folder: the folder to write train/<class> and val/<class>.
        images: number of training images.
    """
    classes = sorted(path for path in (source / "train").iterdir() if path.is_dir())
    for split, number in (("train", images // len(classes)), ("val", 1)):
        for path in classes:
            (folder / split / path.name).mkdir(parents=True)
            for file in sorted(path.iterdir())[:number]:
                image = Image.open(file).convert("RGB").resize(IMAGENET_PIXELS, Image.Resampling.BICUBIC)
                image.save(folder / split / path.name / file.name, quality=90)


def rate(take_batch: Callable[[], Any], batch_size: int, seconds: float) -> float:
    """Images per second of calls repeated for at least the given seconds."""
    start, images = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        take_batch()
        images += batch_size
    return images / spent


def training_step(recipe: Recipe, classes: int) -> Callable[..., None]:
    """A training step of a recipe, which waits for the loss."""
    ms.set_seed(1)
    ms.set_context(mode=ms.GRAPH_MODE)
    # The step count exceeds the length of the recipe's schedule.
    step = build(dataclasses.replace(recipe, schedule=Constant()), classes, 1).model.train_network

    def take(images: ms.Tensor, labels: ms.Tensor) -> None:
        step(images, labels).asnumpy()

    return take


def median_step_rate(take: Callable[[], None], batch_size: int, seconds: float) -> float:
    """Images per second of the median step; takes at least three steps and the given seconds."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        take()
        times.append(time.perf_counter() - start)
    return batch_size / float(np.median(times))


def spread(rates: list[float]) -> dict[str, Any]:
    """The median and the quartiles of the rates."""
    low, median, high = np.percentile(rates, [25, 50, 75])
    return {"median": median, "quartiles": [low, high]}


def measure(name: str, data_dir: Path | None, rounds: int, seconds: float, steps: bool) -> dict[str, Any]:
    """Measures a pipeline and its network.

    Args:
        name: a key of CASES.
        data_dir: the folder of its data.
        rounds: measurements of each rate.
        seconds: minimum duration of each measurement.
        steps: whether to measure the network too.

    Returns:
        The rates in images per second.
    """
    recipe = case_recipe(name)
    data = load_data(recipe.data, data_dir)
    size = recipe.data.batch_size
    result: dict[str, Any] = {"batch_size": size}
    alone = []
    for _ in range(rounds):
        # A new pipeline, without prefetched batches.
        batches = endless_batches(recipe, data)
        alone.append(rate(lambda: next(batches), size, seconds))  # noqa: B023
        batches.close()
    result["pipeline"] = spread(alone)
    if not steps:
        return result
    take = training_step(recipe, data.classes)
    batches = endless_batches(recipe, data)
    images, labels = next(batches)
    for _ in range(WARM_UP_STEPS):
        take(images, labels)
    fixed, fed = [], []
    for _ in range(rounds):
        fixed.append(median_step_rate(lambda: take(images, labels), size, seconds))
        fed.append(median_step_rate(lambda: take(*next(batches)), size, seconds))
    batches.close()
    result["network"], result["both"] = spread(fixed), spread(fed)
    result["pipeline over network"] = result["pipeline"]["median"] / result["network"]["median"]
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each rate (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="minimum duration of each measurement (default: 3)"
    )
    parser.add_argument("--only", default=",".join(CASES), metavar="NAMES", help="the pipelines to measure")
    parser.add_argument("--no-network", action="store_true", help="measure only the pipelines")
    parser.add_argument("--images", type=int, default=400, help="number of enlarged images (default: 400)")
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"--only names {unknown[0]!r}; accepted: {', '.join(CASES)}")
    ms.set_device("CPU")
    results = {}
    with tempfile.TemporaryDirectory() as made:
        folders = {"data": arguments.data_dir, "made": Path(made)}
        if any(name.endswith("224") for name in names):
            enlarge_images(arguments.data_dir / "cifar10-images", Path(made) / "images 224", arguments.images)
        if "mindrecord 224" in names:
            convert(Conversion(Path(made) / "images 224", Path(made) / "records 224", shards=2))
        if "mindrecord 32" in names:
            convert(Conversion(arguments.data_dir / "cifar10-images", Path(made) / "records 32", shards=4))
        for name in tqdm(names, disable=None):
            root, _, rest = CASES[name][1].partition("/")
            folder = folders[root] / rest if root else None
            results[name] = measure(
                name, folder, arguments.rounds, arguments.seconds, not arguments.no_network
            )
            tqdm.write(line(name, results[name]))
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {
            **describe_run(),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "images_per_second": results,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


def line(name: str, result: dict[str, Any]) -> str:
    """Formats the results of one pipeline as a line."""
    parts = [f"{name:17} batch {result['batch_size']:3}"]
    for kind in ("pipeline", "network", "both"):
        if kind in result:
            low, high = result[kind]["quartiles"]
            parts.append(f"{kind} {result[kind]['median']:,.0f} ({low:,.0f} to {high:,.0f})")
    if "network" in result:
        parts.append(f"pipeline over network {result['pipeline over network']:.1f}")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
