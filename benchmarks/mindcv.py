"""The model families of mindcv 0.3 with K-FAC: what is preconditioned and verified, and what it costs.

    pip install "ms_kfac[mindcv]"
    python -m benchmarks.mindcv
    python -m benchmarks.mindcv --families vit,resnet --time-limit 600

One small variant per family, unmodified, on random images, in graph mode. Each family runs in a process of
its own with a time limit: ``nn.Momentum`` and K-FAC train equal networks in turn. Each family adds a line to
OUTPUT/families.csv; families with a line are not repeated, so that the command can be continued.
OUTPUT/table.md has the table.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.support.run_log import RunLog, error_of_run
from model_zoo.common.environment import limit_onednn

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
    "family",
    "model",
    "side",
    "batch",
    "weights",
    "share",
    "layers",
    "states",
    "warnings",
    "finite",
    "momentum_compile_seconds",
    "kfac_compile_seconds",
    "momentum_step_ms",
    "kfac_step_ms",
    "kfac_refresh_ms",
    "error",
    "commit",
    "date",
)
# Statistics and inverses of K-FAC are refreshed at every so many steps.
INTERVAL = 5
CLASSES = 10


@dataclass(frozen=True)
class Family:
    """A variant of a family: the one with the fewest weights, on images as small as it accepts.

    Attributes:
        model: its name in mindcv.
        side: the side of the images.
        skip: layers to leave first-order, because their factors don't fit into a small machine's memory.
    """

    model: str
    side: int = 64
    skip: tuple[str, ...] = ()


FAMILIES = {
    "bit": Family("BiT_resnet50"),
    "cait": Family("cait_xxs24_224", 224),
    "cmt": Family("cmt_tiny", 160),
    "coat": Family("coat_lite_tiny", 224),
    "convit": Family("convit_tiny", 224),
    "convnext": Family("convnextv2_atto"),
    "crossvit": Family("crossvit_9", 240),
    "densenet": Family("densenet121"),
    "dpn": Family("dpn92"),
    "edgenext": Family("edgenext_xx_small"),
    "efficientnet": Family("efficientnet_b0"),
    "ghostnet": Family("ghostnet_050"),
    "googlenet": Family("googlenet"),
    "halonet": Family("halonet_50t", 256),
    "hrnet": Family("hrnet_w32"),
    "inceptionv3": Family("inception_v3", 299),
    "inceptionv4": Family("inception_v4", 128),
    "mae": Family("mae_b_16_224_finetune", 224),
    "mixnet": Family("mixnet_s"),
    "mlpmixer": Family("mlp_mixer_s_p32", 224),
    "mnasnet": Family("mnasnet_050"),
    "mobilenetv1": Family("mobilenet_v1_025"),
    "mobilenetv2": Family("mobilenet_v2_035_96"),
    "mobilenetv3": Family("mobilenet_v3_small_075"),
    "mobilevit": Family("mobilevit_xx_small"),
    "nasnet": Family("nasnet_a_4x1056", 128),
    "pit": Family("pit_ti", 224),
    "pnasnet": Family("pnasnet", 128),
    "poolformer": Family("poolformer_s12"),
    "pvt": Family("pvt_tiny", 224),
    "pvtv2": Family("pvt_v2_b0", 224),
    "regnet": Family("regnet_x_200mf"),
    "repmlp": Family("repmlp_t224", 224),
    "repvgg": Family("repvgg_a0"),
    "res2net": Family("res2net50"),
    "resnest": Family("resnest14"),
    "resnet": Family("resnet18"),
    "resnetv2": Family("resnetv2_50"),
    "rexnet": Family("rexnet_09"),
    "senet": Family("seresnet18"),
    "shufflenetv1": Family("shufflenet_v1_g3_05"),
    "shufflenetv2": Family("shufflenet_v2_x0_5"),
    "sknet": Family("skresnet18"),
    "squeezenet": Family("squeezenet1_1"),
    "swintransformer": Family("swin_tiny", 224),
    "swintransformerv2": Family("swinv2_tiny_window8", 256),
    "vgg": Family("vgg11", 224, skip=(r"classifier\.0$",)),
    "visformer": Family("visformer_tiny", 224),
    "vit": Family("vit_b_32_224", 224),
    "volo": Family("volo_d1", 224),
    "xception": Family("xception", 96),
    "xcit": Family("xcit_tiny_12_p16_224", 224),
}


def median_ms(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    ordered = sorted(seconds)
    return round(1000 * ordered[len(ordered) // 2], 2)


def _first_line(error: Exception) -> str:
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip("- ")]
    return lines[0] if lines else ""


def measure(family: Family, batch: int, rounds: int) -> dict[str, Any]:
    """Trains a family with both optimizers, in turn.

    Args:
        family: the variant.
        batch: images per batch.
        rounds: steps after the first one.

    Returns:
        The columns of its line. Only "error" if the family does not train with ``nn.Momentum``.
    """
    limit_onednn("CPU")
    import mindcv
    import mindspore as ms
    import numpy as np
    from mindspore import nn

    import ms_kfac

    class Loss(nn.Cell):
        """Cross-entropy of the logits, and of auxiliary ones where a model has them."""

        def __init__(self) -> None:
            super().__init__()
            self.loss = nn.CrossEntropyLoss()

        def construct(self, outputs: Any, labels: Any) -> Any:
            if isinstance(outputs, tuple):
                return self.loss(outputs[0], labels) + 0.3 * self.loss(outputs[1], labels)
            return self.loss(outputs, labels)

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(1)
    images = ms.Tensor(rng.standard_normal((batch, 3, family.side, family.side), dtype=np.float32))
    labels = ms.Tensor(rng.integers(0, CLASSES, batch).astype(np.int32))

    def train(create: Any) -> tuple[Any, Any]:
        ms.set_seed(1)
        network = mindcv.create_model(family.model, num_classes=CLASSES)
        optimizer = create(network)
        step = nn.TrainOneStepCell(nn.WithLossCell(network, Loss()), optimizer)
        return optimizer, step.set_train()

    def timed(step: Any) -> float:
        start = time.perf_counter()
        step(images, labels).asnumpy()
        return time.perf_counter() - start

    # The first compilation of a process has costs of its own.
    small = nn.Dense(2, 2)
    nn.TrainOneStepCell(small, nn.Momentum(small.trainable_params(), 0.01, 0.9))(ms.ops.ones((1, 2)))

    every = ms_kfac.FixedInterval(INTERVAL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _, momentum = train(lambda network: nn.Momentum(network.trainable_params(), 0.001, 0.9))
            first_momentum = timed(momentum)
        except Exception as error:  # Any kind: some models need operators that MindSpore no longer has.
            return {"error": f"fails with nn.Momentum too: {type(error).__name__}: {_first_line(error)}"}
        kfac, second_order = train(
            lambda network: ms_kfac.KFAC(
                network, 0.001, factor_interval=every, inverse_interval=every, skip=family.skip
            )
        )
        first = first_momentum, timed(second_order)
        states = [checked.state for checked in kfac.verification.checked]
        seconds = [(timed(momentum), timed(second_order)) for _ in range(rounds)]
    refreshes = [pair[1] for step, pair in enumerate(seconds, start=1) if step % INTERVAL == 0]
    ordinary = [pair[1] for step, pair in enumerate(seconds, start=1) if step % INTERVAL]
    step_ms = median_ms([pair[0] for pair in seconds]), median_ms(ordinary)
    refresh_ms = median_ms(refreshes)
    told = dict.fromkeys(str(entry.message) for entry in caught)
    preconditioned = re.search(r"preconditioned: ([\d.]+) % of ([\d,]+) weights", kfac.summary())
    assert preconditioned is not None
    return {
        "weights": int(preconditioned[2].replace(",", "")),
        "share": float(preconditioned[1]),
        "layers": len(kfac.layers),
        "states": ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        "warnings": "; ".join(text for text in told if text.startswith("KFAC")),
        "finite": all(bool(np.isfinite(p.asnumpy()).all()) for p in kfac.parameters),
        "momentum_compile_seconds": round(first[0] - step_ms[0] / 1000, 2),
        # K-FAC's first step refreshes.
        "kfac_compile_seconds": round(first[1] - refresh_ms / 1000, 2),
        "momentum_step_ms": step_ms[0],
        "kfac_step_ms": step_ms[1],
        "kfac_refresh_ms": refresh_ms,
    }


def run_family(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures a family in a process of its own.

    Args:
        name: the family.
        arguments: the command line.

    Returns:
        Its line; "error" says what went wrong.

    Raises:
        SystemExit: a signal ended the process.
    """
    from benchmarks.machine import describe_run

    command = [sys.executable, "-m", "benchmarks.mindcv", "--child", name]
    command += ["--batch-size", str(arguments.batch_size), "--rounds", str(arguments.rounds)]
    family, described = FAMILIES[name], describe_run()
    row: dict[str, Any] = {
        "family": name,
        "model": family.model,
        "side": family.side,
        "batch": arguments.batch_size,
        "commit": described["commit"],
        "date": described["date"],
    }
    try:
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=arguments.time_limit
        )
    except subprocess.TimeoutExpired:
        return {**row, "error": f"not finished after {arguments.time_limit:g} s"}
    if run.returncode != 0:
        return {**row, "error": error_of_run(name, run.stderr, run.returncode)}
    return {**row, **json.loads(run.stdout.strip().splitlines()[-1])}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Formats the lines of all families as a Markdown table.

    Args:
        rows: the lines of the CSV file.

    Returns:
        The table, and what its columns mean.
    """
    head = ("family", "model", "weights", "preconditioned", "layers at the first commit")
    head += ("compilation", "step", "step with refresh")
    lines = ["# mindcv's families with K-FAC", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in sorted(rows, key=lambda row: row["family"]):
        cells = [row["family"], row["model"]]
        if row["error"]:
            cells += ["", "", row["error"].replace("|", "/"), "", "", ""]
        else:
            momentum = float(row["momentum_step_ms"])
            compiled = float(row["kfac_compile_seconds"]), float(row["momentum_compile_seconds"])
            cells += [f"{int(row['weights']):,}", f"{row['share']} %", row["states"]]
            cells += [f"{compiled[0] / compiled[1]:.2f} ({compiled[0]:.1f} s, {compiled[1]:.1f} s)"]
            for key in ("kfac_step_ms", "kfac_refresh_ms"):
                cells.append(
                    f"{float(row[key]) / momentum:.2f} ({float(row[key]):.0f} ms, {momentum:.0f} ms)"
                )
        lines.append("| " + " | ".join(cells) + " |")
    skipped = [f"{name}: {', '.join(family.skip)}" for name, family in FAMILIES.items() if family.skip]
    lines += [
        "",
        f"Compilation and steps are those of `KFAC` over `nn.Momentum`, {CLASSES} classes, random images. A "
        f"step with refresh takes statistics and computes all inverses. Skipped: {'; '.join(skipped)}.",
    ]
    return "\n".join(lines) + "\n"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mindcv",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--families", metavar="NAMES", help="default: all")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10, help="steps of each optimizer (default: 10)")
    parser.add_argument("--time-limit", type=float, default=1800, help="seconds per family (default: 1800)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "mindcv")
    parser.add_argument("--child", choices=FAMILIES, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    parsed.families = list(FAMILIES) if parsed.families is None else parsed.families.split(",")
    for name in parsed.families:
        if name not in FAMILIES:
            parser.error(f"--families: must be of {', '.join(FAMILIES)}, got {name}")
    if parsed.rounds < INTERVAL:
        parser.error(f"--rounds: must be at least {INTERVAL}, got {parsed.rounds}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the families without a line, and writes the table."""
    parsed = parse_arguments(arguments)
    if parsed.child is not None:
        print(json.dumps(measure(FAMILIES[parsed.child], parsed.batch_size, parsed.rounds)))
        return 0
    if find_spec("mindcv") is None:
        print("error: this benchmark needs mindcv; install ms_kfac[mindcv].", file=sys.stderr)
        return 1
    log = RunLog(parsed.output / "families.csv", COLUMNS, ("family", "model", "side", "batch"))
    for name in parsed.families:
        family = FAMILIES[name]
        if log.find(family=name, model=family.model, side=family.side, batch=parsed.batch_size) is None:
            row = run_family(name, parsed)
            log.append(row)
            print(f"{name}: {row.get('error') or row['states']}", flush=True)
    text = table(log.rows())
    (parsed.output / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
