"""MindRecord: same batches as the image folder; killed conversions can be continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_zoo import convert as command
from model_zoo.common.data import pipelines, record_writer
from model_zoo.common.data.record_writer import Conversion, convert
from model_zoo.common.data.records import load, row_checksum
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import MindRecordOptions
from tests.model_zoo.synthetic_data import ROOT, write_image_folder
from tests.model_zoo.test_encoded import OPTIONS as FOLDER_OPTIONS
from tests.model_zoo.test_encoded import break_image
from tests.model_zoo.test_pipelines import assert_same, batches, training

OPTIONS = MindRecordOptions(
    "mindrecord", 4, evaluation_batch_size=4, image_size=24, resize=32, least_area=0.3, workers=2
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder and its conversion, which was moved after writing."""
    folder = write_image_folder(tmp_path_factory.mktemp("converted") / "images")
    first = folder.parent / "first"
    convert(Conversion(folder, first, shards=2))
    return folder, first.rename(folder.parent / "records")


def evaluated(data: Any, options: Any, split: str) -> Any:
    return batches(pipelines.evaluation_batches(data, split, options))


def test_converted_records_give_the_batches_of_the_folder(converted: tuple[Path, Path]) -> None:
    folder, records = (
        pipelines.load_data(options, path) for options, path in zip((FOLDER_OPTIONS, OPTIONS), converted)
    )
    assert (records.title, records.classes) == ("MindRecord of records", 3)
    assert (records.training_images, records.test_images) == (12, 6)
    for epoch in (0, 5):
        assert_same(training(records, OPTIONS, epoch=epoch), training(folder, FOLDER_OPTIONS, epoch=epoch))
    assert_same(training(records, OPTIONS, epoch=2, skip=1), training(folder, FOLDER_OPTIONS, epoch=2)[1:])
    for split in ("train", "test"):
        assert_same(evaluated(records, OPTIONS, split), evaluated(folder, FOLDER_OPTIONS, split))
    described = {**folder.describe(), "title": "MindRecord of records"}
    assert records.describe() == described


def test_missing_unfinished_or_truncated_conversion_is_reported(
    converted: tuple[Path, Path], tmp_path: Path
) -> None:
    def refused(folder: Path | None, message: str) -> None:
        with pytest.raises(DataError, match=message):
            pipelines.load_data(OPTIONS, folder)

    refused(None, "MindRecord needs --data-dir, a folder written by `ms-kfac-zoo convert`")
    refused(tmp_path / "nowhere", "nowhere is not a folder")
    refused(converted[0], r"images has no index\.json")
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    index = folder / "index.json"
    whole = index.read_text()
    index.write_text("{}")
    refused(folder, r"index\.json is not an index written by `ms-kfac-zoo convert`")
    content = json.loads(whole)
    del content["files"]["test-00001-of-00002.mindrecord"]
    index.write_text(json.dumps(content))
    refused(folder, "is incomplete: 1 of 2 files of a split are missing. Run the same command again")
    index.write_text(whole)
    pipelines.load_data(OPTIONS, folder)
    database = folder / "train-00001-of-00002.mindrecord.db"
    database.write_bytes(database.read_bytes()[:-1])
    refused(
        folder, r"train-00001-of-00002.mindrecord and .*\.db have .* is one of them missing or truncated\?"
    )
    database.unlink()
    refused(folder, r"\.db have 0 bytes")


def test_damage_inside_a_record_file_is_reported(converted: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    path = folder / "test-00000-of-00002.mindrecord"
    content = path.read_bytes()
    image = (converted[0] / "val" / "ant" / "001.png").read_bytes()
    assert content.count(image) == 1
    path.write_bytes(content.replace(image, bytes(len(image))))
    data = pipelines.load_data(OPTIONS, folder)
    with pytest.raises(
        DataError, match=rf"^MindRecord: image 1 of {folder} is damaged: its checksum differs"
    ):
        evaluated(data, OPTIONS, "test")
    path.write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match=rf"^MindRecord: a file of {folder} is damaged: "):
        evaluated(data, OPTIONS, "test")


def all_rows(folder: Path) -> list[tuple[int, bytes]]:
    split = load(folder).train
    return [(image.label, image.read()) for image in split.images(range(len(split)))]


@pytest.mark.parametrize("suffix", ["", ".db"])
def test_a_flipped_bit_of_a_record_file_changes_nothing_silently(
    suffix: str, converted: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(converted[1], tmp_path / "records")
    expected = all_rows(tmp_path / "records")
    path = tmp_path / "records" / f"train-00001-of-00002.mindrecord{suffix}"
    whole = path.read_bytes()
    # The rest is padding.
    used = [place for place, byte in enumerate(whole) if byte]
    damaged = 0
    for place in used[:: max(len(used) // 24, 1)]:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 1]))
        try:
            assert all_rows(tmp_path / "records") == expected, place
        except DataError as error:
            damaged += 1
            assert "damaged" in str(error) or "has class" in str(error)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(whole[place : place + 1])
    assert damaged


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_class_that_does_not_exist_is_refused(
    label: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_image_folder(tmp_path / "images")
    monkeypatch.setattr(record_writer, "row_checksum", lambda _, content: row_checksum(9, content))
    checked = record_writer._checked

    def write_another_label(*arguments: Any) -> dict[str, Any] | None:
        row = checked(*arguments)
        return row and {**row, "label": label}

    monkeypatch.setattr(record_writer, "_checked", write_another_label)
    convert(Conversion(folder, tmp_path / "records", shards=1))
    with pytest.raises(DataError, match=rf"image 0 of .* has class {label}; expected 0 to 2\."):
        all_rows(tmp_path / "records")


def test_files_without_checksums_are_refused(converted: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(converted[1], tmp_path / "records")
    index = tmp_path / "records" / "index.json"
    content = json.loads(index.read_text())
    del content["plan"]["checksum"]
    index.write_text(json.dumps(content))
    with pytest.raises(DataError, match="have no checksums, because an earlier version wrote them; convert"):
        load(tmp_path / "records")


def test_broken_images_are_reported_or_skipped(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "images", train=2, test=1)
    broken = break_image(folder / "train" / "bee" / "000.JPEG")
    with pytest.raises(DataError, match=f"{broken} can't be decoded: .*[Tt]runcated"):
        convert(Conversion(folder, tmp_path / "refused", shards=1))
    index = convert(Conversion(folder, tmp_path / "out", shards=1, skip_broken=True))
    assert list(index["files"]["train-00000-of-00001.mindrecord"]["broken"]) == [str(broken)]
    data = pipelines.load_data(OPTIONS, tmp_path / "out")
    assert (data.training_images, data.test_images) == (5, 3)
    labels = np.concatenate([labels for _, labels in evaluated(data, OPTIONS, "train")])
    np.testing.assert_array_equal(labels, [0, 0, 1, 2, 2])
    for path in (folder / "val").rglob("*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 3 images for test-00000-of-00001\.mindrecord can be"):
        convert(Conversion(folder, tmp_path / "none", shards=1, skip_broken=True))


def test_large_images_are_scaled_down_if_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_image_folder(tmp_path / "images", train=2, test=1, classes=("ant",))
    written = []

    class Writer(record_writer.FileWriter):
        def write_raw_data(self, rows: list[dict], *arguments: Any) -> Any:
            written.extend(rows)
            return super().write_raw_data(rows, *arguments)

    monkeypatch.setattr(record_writer, "FileWriter", Writer)
    convert(Conversion(folder, tmp_path / "out", shards=1, size=38))
    sizes = [record_writer.decode(row["image"]).size for row in written]
    # 40 x 60, 41 x 36 and 40 x 60 before.
    assert sizes == [(38, 57), (41, 36), (38, 57)]
    assert written[1]["image"] == (folder / "train" / "ant" / "001.png").read_bytes()


def test_killed_conversion_resumes(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "images", train=40, test=20, classes=("ant", "bee"))
    output = tmp_path / "out"
    arguments = ["--images", str(folder), "--output", str(output), "--shards", "20"]
    process = subprocess.Popen([sys.executable, "-m", "model_zoo.convert", *arguments], cwd=ROOT)
    finished: dict[str, int] = {}
    deadline = time.monotonic() + 120
    while not finished and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        if (output / "index.json").is_file():
            process.send_signal(signal.SIGKILL)
            process.wait()
            names = json.loads((output / "index.json").read_text())["files"]
            finished = {name: os.stat(output / name).st_mtime_ns for name in names}
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(finished) < 40

    # The partial file of the killed conversion does not matter.
    assert (output / "partial").is_dir()
    assert command.main(arguments) == 0
    assert not (output / "partial").exists()
    assert {name: os.stat(output / name).st_mtime_ns for name in finished} == finished
    data = pipelines.load_data(OPTIONS, output)
    assert_same(
        evaluated(data, OPTIONS, "train"),
        evaluated(pipelines.load_data(FOLDER_OPTIONS, folder), FOLDER_OPTIONS, "train"),
    )


def test_damaged_record_file_is_rewritten_and_others_are_kept(
    converted: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    damaged, kept = folder / "train-00000-of-00002.mindrecord", folder / "train-00001-of-00002.mindrecord"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = kept.stat().st_mtime_ns
    convert(Conversion(converted[0], folder, shards=2))
    assert kept.stat().st_mtime_ns == before
    assert len(evaluated(pipelines.load_data(OPTIONS, folder), OPTIONS, "train")) == 3


def test_conversion_with_other_options_is_refused(converted: tuple[Path, Path], tmp_path: Path) -> None:
    folder, records = converted
    for change, name in (
        ({"shards": 3}, "shards"),
        ({"size": 20}, "size"),
        ({"skip_broken": True}, "skip_broken"),
    ):
        with pytest.raises(
            DataError, match=f"records holds another conversion, with a different {name}; choose"
        ):
            convert(Conversion(**{"images": folder, "output": records, "shards": 2, **change}))
    other = write_image_folder(tmp_path / "images", train=5)
    with pytest.raises(DataError, match="with a different listing; choose"):
        convert(Conversion(other, records, shards=2))


def test_the_command_line_is_checked_before_mindspore_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from model_zoo.convert import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: sys.exit(99 if 'mindspore' in sys.modules else end.code)"
    )
    arguments = ["--images", tmp_path, "--output", tmp_path / "out", "--shards", "0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "argument --shards: 0 is below 1" in done.stderr


def test_conversion_command_reports_results_and_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_image_folder(tmp_path / "images", train=2, test=1, classes=("ant",))
    broken = break_image(folder / "train" / "ant" / "000.JPEG")
    arguments = ["--images", str(folder), "--output", str(tmp_path / "out"), "--shards", "1"]
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {broken} can't be decoded: ")
    assert command.main([*arguments, "--broken", "skip"]) == 0
    out = capsys.readouterr().out
    assert f"skipped: {broken} can't be decoded: " in out
    assert out.endswith(f"2 images in 2 files, 1 skipped: {tmp_path / 'out'}\n")
    assert command.main([*arguments, "--shards", "2"]) == 2
    assert "--shards is 2; accepted: at most the number of test images, 1" in capsys.readouterr().err
