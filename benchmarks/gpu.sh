#!/bin/bash
# Check and measure zoo on a machine with a GPU, in less than seven minutes and without a network.
#
#     uv build --wheel --out-dir wheels && pip download --no-deps -d wheels timm==1.0.31 pluggy click
#     OUT=results benchmarks/gpu.sh
#
# Python needs torch and torchvision; what else is missing there is unpacked from the wheels in
# $WHEELS, by default the folder `wheels`. Results are in $OUT/gpu.json, written after each section.
# Arguments are those of `python -m benchmarks.gpu`, such as --device cpu --small for a trial.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for wheel in "${WHEELS:-wheels}"/*.whl; do
    if [ -e "$wheel" ]; then "${PYTHON:-python}" -m zipfile -e "$wheel" "$work/site"; fi
done
export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"
export XDG_CACHE_HOME="$work/cache" XDG_CONFIG_HOME="$work/config" HF_HUB_OFFLINE=1
export ZOO_PLUGINS="${ZOO_PLUGINS:--tensorboard,-regression,-report}"
timeout 420 "${PYTHON:-python}" -m benchmarks.gpu --out "${OUT:-.}" "$@"
