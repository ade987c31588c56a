#!/usr/bin/env bash
# Makes the embedded base again, from nothing but the world's renderer: about eight hours on two idle cores, of which
# the denoiser takes 165 minutes and 82 more to be finished.
set -euo pipefail
cd "$(dirname "$0")/../.."
step() { echo "== $*"; "$@"; }

step python recipes/tabletop/pictures.py
step python recipes/tabletop/tokenizer.py
step python recipes/tabletop/clip.py --threads 2
step python recipes/tabletop/autoencoder.py --threads 2
step python recipes/tabletop/classifier.py --threads 2
step cp build/tabletop/classifier/model.safetensors build/tabletop/classifier/config.json \
  src/inlay/metrics/tabletop_judge/
step python recipes/tabletop/export.py
# The image side learns on while the text side, which the denoiser reads, stays as exported.
step python recipes/tabletop/clip.py --threads 2 --refine build/tabletop/clip/model --out build/tabletop/clip-refined \
  --steps 700 --rate 5e-4 --results recipes/tabletop/results/clip-refined.json
# A processor without bf16 imitates it, more slowly than it computes float32.
precision=$(python -c 'from inlay.run.machine import this_machine; print("bf16" if this_machine().fast_bf16 else "fp32")')
# Two processes with half the cores each are faster than one with all.
processes=$(($(nproc) > 1 ? 2 : 1))
export OMP_NUM_THREADS=$(($(nproc) / processes))
step torchrun --nproc-per-node "$processes" --no-python \
  inlay pretrain recipes/tabletop/denoiser.yaml "train.precision=$precision"
# An earlier finish would be exported in its place, and began with other weights.
step rm -rf build/tabletop/finish
step python recipes/tabletop/export.py
step torchrun --nproc-per-node "$processes" --no-python \
  inlay tune recipes/tabletop/finish.yaml "train.precision=$precision"
step python recipes/tabletop/export.py
step python recipes/tabletop/denoiser.py
step python recipes/tabletop/quality.py
step python recipes/tabletop/card.py
