#!/bin/sh
# What makes an image of Debian or Ubuntu: a compiler for Triton's kernels, and the packages of a lock.
# The Containerfile and the Apptainer definition call it: image.sh CUDA
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends ca-certificates gcc git libc6-dev make python3 python3-dev python3-venv
rm -rf /var/lib/apt/lists/*
UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make -C /mofe CUDA="$1" VENV=/opt/mofe setup
