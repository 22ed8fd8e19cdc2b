#!/usr/bin/env bash
# Unpacks and checks data sets, and converts folders of images.
#
#   bash scripts/prepare_data.sh mnist    --archives DIR     DIR holds the four .gz files
#   bash scripts/prepare_data.sh cifar10  --archives DIR     DIR holds cifar-10-binary.tar.gz
#   bash scripts/prepare_data.sh cifar100 --archives DIR     DIR holds cifar-100-binary.tar.gz
#
#   --archives DIR     folder of the archives, and of downloads (default: data/archives)
#   --output DIR       folder to write to, for --data-dir of training (default: data)
#   --download         download missing archives; otherwise nothing is downloaded
#
# Unpacked files are checked against the published ones: MNIST by the MD5 sums of its files, CIFAR by the MD5 sums of the
# archives and the sizes of the files in them. Existing files are checked too, and not unpacked again.
#
#   bash scripts/prepare_data.sh images --images DIR --output DIR [--shards N] [--broken refuse|skip]
#
#   --images DIR       folder with train and val or test, each with one folder of images per class
#   --output DIR       folder of the MindRecord files
#   --shards N         files per split (default: 8)
#   --broken WORD      refuse: report a broken image and stop; skip: skip and count it (default: refuse)
#
# `images` sets up .venv on the first call and passes its options to `ms-kfac-zoo convert`; see its --help. The
# other commands need gzip, tar and md5sum, and curl or wget to download.
if [ -z "${BASH_VERSION:-}" ] || shopt -oq posix; then exec bash "$0" "$@"; fi # as in `sh scripts/...`
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

(($#)) || refuse "name the data: mnist, cifar10, cifar100 or images; see --help."
kind="$1"
shift
case "$kind" in
    mnist | cifar10 | cifar100) ;;
    images)
        use_model_zoo
        exec "$VENV_PYTHON" -c "$ZOO_COMMAND" convert "$@"
        ;;
    *) refuse "the data is $kind; accepted: mnist, cifar10, cifar100 or images." ;;
esac

output="data"
archives=""
download=""
while (($#)); do
    case "$1" in
        --archives | --output)
            (($# > 1)) || refuse "$1 needs a value."
            case "$1" in
                --archives) archives="$2" ;;
                --output) output="$2" ;;
            esac
            shift 2
            ;;
        --download)
            download=1
            shift
            ;;
        *) refuse "unknown option $1; see --help." ;;
    esac
done
archives="${archives:-data/archives}"

md5_of() {
    md5sum <"$1" | cut -d ' ' -f 1
}

# Downloads to a temporary name, so that the archive is complete or absent.
fetch() {
    local url="$1" archive="$2"
    mkdir -p "$archives"
    echo "Fetching $url"
    if command -v curl >/dev/null; then
        curl --fail --location --silent --show-error --output "$archive.part" "$url" || fail "$url could not be fetched."
    elif command -v wget >/dev/null; then
        wget --quiet --output-document="$archive.part" "$url" || fail "$url could not be fetched."
    else
        fail "--download needs curl or wget."
    fi
    mv "$archive.part" "$archive"
}

# URL NAME: makes sure that the archive exists.
need_archive() {
    local url="$1" archive="$archives/$2"
    [[ ! -f "$archive" ]] || return 0
    [[ -n "$download" ]] || fail "$archive is missing; add --download to fetch it from $url."
    fetch "$url" "$archive"
}

# FILE SIZE: whether FILE exists and has SIZE bytes.
has_size() {
    [[ -f "$1" ]] && (($(wc -c <"$1") == $2))
}

prepare_mnist() {
    local source="https://ossci-datasets.s3.amazonaws.com/mnist" folder="$output/mnist" name sum
    mkdir -p "$folder"
    while read -r name sum; do
        if [[ ! -f "$folder/$name" ]]; then
            need_archive "$source/$name.gz" "$name.gz"
            gzip --decompress --stdout "$archives/$name.gz" >"$folder/$name.part" || fail "$archives/$name.gz is damaged."
            mv "$folder/$name.part" "$folder/$name"
        fi
        [[ "$(md5_of "$folder/$name")" == "$sum" ]] ||
            fail "$folder/$name is not the published file: its MD5 sum is $(md5_of "$folder/$name"), expected $sum."
    done <<'FILES'
train-images-idx3-ubyte 6bbc9ace898e44ae57da46a324031adb
train-labels-idx1-ubyte a25bea736e30d166cdddb491f175f624
t10k-images-idx3-ubyte 2646ac647ad5339dbf082846283269ea
t10k-labels-idx1-ubyte 27ae3e4e09519cfbb04c329615203637
FILES
    echo "MNIST is in $folder"
}

# TITLE ARCHIVE SUM FOLDER, followed by SIZE NAME of each file.
prepare_cifar() {
    local title="$1" archive="$2" sum="$3" folder="$output/$4" name size wrong=""
    shift 4
    while read -r size name; do
        has_size "$folder/$name" "$size" || wrong="$name"
    done < <(printf '%s %s\n' "$@")
    if [[ -n "$wrong" ]]; then
        need_archive "https://www.cs.toronto.edu/~kriz/$archive" "$archive"
        [[ "$(md5_of "$archives/$archive")" == "$sum" ]] ||
            fail "$archives/$archive is not the published archive: its MD5 sum is $(md5_of "$archives/$archive"), expected $sum."
        mkdir -p "$output"
        tar --extract --gzip --no-same-owner --file "$archives/$archive" --directory "$output" || fail "$archives/$archive is damaged."
        while read -r size name; do
            has_size "$folder/$name" "$size" || fail "$folder/$name is missing from the archive, or does not have $size bytes."
        done < <(printf '%s %s\n' "$@")
    fi
    echo "$title is in $folder"
}

case "$kind" in
    mnist) prepare_mnist ;;
    cifar10)
        prepare_cifar CIFAR-10 cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530 cifar-10-batches-bin \
            30730000 data_batch_1.bin 30730000 data_batch_2.bin 30730000 data_batch_3.bin 30730000 data_batch_4.bin \
            30730000 data_batch_5.bin 30730000 test_batch.bin
        ;;
    cifar100)
        prepare_cifar CIFAR-100 cifar-100-binary.tar.gz 03b5dce01913d631647c71ecec9e9cb8 cifar-100-binary \
            153700000 train.bin 30740000 test.bin
        ;;
esac
