"""Image folders: the order of their files, and the errors for wrong folders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from model_zoo.common.data.class_folders import read_folders
from model_zoo.common.data.folders import read_bytes
from model_zoo.common.errors import DataError


def test_classes_and_files_are_sorted_by_name(image_folder: Path) -> None:
    (image_folder / "train" / ".DS_Store").touch()
    (image_folder / "train" / "bee" / ".hidden").touch()
    train, test, classes = read_folders(image_folder)
    assert classes == ("ant", "bee", "cat")
    assert (len(train), len(test)) == (12, 6)
    assert train.paths[3:6] == ["ant/003.JPEG", "bee/000.JPEG", "bee/001.png"]
    np.testing.assert_array_equal(train.labels, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(test.labels, np.repeat([0, 1, 2], 2))
    (image,) = train.images([5])
    assert (image.name, image.label) == (str(image_folder / "train" / "bee" / "001.png"), 1)
    assert image.read() == (image_folder / "train" / "bee" / "001.png").read_bytes()


def test_val_split_is_preferred_to_test(image_folder: Path) -> None:
    (image_folder / "test").mkdir()
    assert read_folders(image_folder)[1].folder.name == "val"
    (image_folder / "test").rmdir()
    (image_folder / "val").rename(image_folder / "test")
    assert read_folders(image_folder)[1].folder.name == "test"


def test_class_without_test_images_does_not_shift_labels(image_folder: Path) -> None:
    for path in (image_folder / "val" / "bee").iterdir():
        path.unlink()
    (image_folder / "val" / "bee").rmdir()
    np.testing.assert_array_equal(read_folders(image_folder)[1].labels, [0, 0, 2, 2])


def test_missing_folders_are_reported(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs --data-dir, a folder that holds train and val or test"):
        read_folders(None)
    with pytest.raises(DataError, match=r"was not found: .*nowhere is not a folder"):
        read_folders(tmp_path / "nowhere")
    (image_folder / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"not found: .*images does not contain train and val or test"):
        read_folders(image_folder)


def test_unexpected_files_are_reported(image_folder: Path) -> None:
    def refused(path: Path, message: str, folder: bool = False) -> None:
        path.mkdir() if folder else path.touch()
        with pytest.raises(DataError, match=message):
            read_folders(image_folder)
        path.rmdir() if folder else path.unlink()

    train = image_folder / "train"
    refused(train / "list.txt", r"train/list\.txt is a file; only class folders are accepted here")
    refused(train / "dog", r"train/dog is empty; remove it, or add images", folder=True)
    refused(
        train / "bee" / "more", r"bee/more is a folder; accepted .*: files that end in \.jpeg", folder=True
    )
    refused(train / "bee" / "x.jpg", r"bee/x\.jpg is a folder; accepted", folder=True)
    refused(train / "bee" / "notes.txt", r"bee/notes\.txt is not an image; accepted")
    refused(
        image_folder / "val" / "dog",
        "val/dog is a class without training images",
        folder=True,
    )


def make_special(kind: str, path: Path) -> None:
    """Makes something that is not a regular file; opening the pipe would wait forever."""
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to({"a device": "/dev/zero", "a broken link": path.name}[kind])


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a folder", "a broken link"])
@pytest.mark.parametrize("place", ["train/bee", "train"])
def test_only_regular_files_are_images(
    image_folder: Path, kind: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The path of a socket has at most 107 characters.
    monkeypatch.chdir(image_folder)
    make_special(kind, Path(place, "x.png"))
    said = "empty" if (place, kind) == ("train", "a folder") else kind
    with pytest.raises(DataError, match=rf"{place}/x\.png is {said}"):
        read_folders(Path("."))


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a folder"])
def test_what_is_not_a_regular_file_is_never_opened(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An image may be replaced after it was listed, and other data sets have files at fixed names.
    monkeypatch.chdir(tmp_path)
    make_special(kind, Path("x.png"))
    opened = []
    monkeypatch.setattr(Path, "open", lambda path, *_: opened.append(path))
    with pytest.raises(DataError, match=rf"^Data: x\.png is {kind}, not a regular file\.$"):
        read_bytes("Data", Path("x.png"))
    assert not opened


def test_links_to_files_and_folders_are_followed(image_folder: Path) -> None:
    bee = image_folder / "train" / "bee"
    bee.rename(image_folder / "elsewhere")
    bee.symlink_to(image_folder / "elsewhere")
    (bee / "link.png").symlink_to("001.png")
    assert "bee/link.png" in read_folders(image_folder)[0].paths


def test_split_without_classes_is_reported(image_folder: Path) -> None:
    (image_folder / "train").rename(image_folder / "other")
    (image_folder / "train").mkdir()
    with pytest.raises(DataError, match=r"images/train has no class folder"):
        read_folders(image_folder)
