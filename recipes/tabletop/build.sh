#!/usr/bin/env bash
# Makes the embedded base again, from nothing but the world's renderer: eleven to twelve hours on two idle
# cores, of which the denoiser takes 165 minutes, 82 more to be finished, and three to four hours to learn from a
# classifier of latents. It replaces the base and the judge in src/, and what an earlier build left in build/tabletop
# but for its pictures.
#
#   MINIATURE=1 bash recipes/tabletop/build.sh
#
# does the same with a handful of pictures and steps, in minutes, to see that the parts fit together; in a copy of the
# checkout, for such a base draws nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
step() { echo "== $*"; "$@"; }

few=() run=() measures=()
if [ -n "${MINIATURE:-}" ]; then
  few=(--steps 4)
  run=(data.count=256 data.validation=16 train.minutes=null train.steps=4 train.batch_size=16 train.checkpoint_every=2
    train.validate_every=2 train.schedule.warmup_steps=1)
  measures=(--prompts 8 --sweep 8 --frechet 32 --renders 64 --steps 4)
fi

# Parts of an earlier build would be exported in place of those that are still to come.
step rm -rf build/tabletop/{tokenizer,clip,clip-refined,autoencoder,classifier,denoiser,finish,noisy-classifier,taught*}
step python recipes/tabletop/pictures.py
step python recipes/tabletop/tokenizer.py
step python recipes/tabletop/clip.py --threads 2 "${few[@]}"
step python recipes/tabletop/autoencoder.py --threads 2 "${few[@]}"
step python recipes/tabletop/classifier.py --threads 2 "${few[@]}"
step cp build/tabletop/classifier/model.safetensors build/tabletop/classifier/config.json \
  src/inlay/metrics/tabletop_judge/
step python recipes/tabletop/export.py
# The image side learns on while the text side, which the denoiser reads, stays as exported.
step python recipes/tabletop/clip.py --threads 2 --refine build/tabletop/clip/model --out build/tabletop/clip-refined \
  --steps 700 --rate 5e-4 --results recipes/tabletop/results/clip-refined.json "${few[@]}"
# A processor without bf16 imitates it, more slowly than it computes float32.
precision=$(python -c 'from inlay.run.machine import this_machine; print("bf16" if this_machine().fast_bf16 else "fp32")')
# Two processes with half the cores each are faster than one with all.
processes=$(($(nproc) > 1 ? 2 : 1))
export OMP_NUM_THREADS=$(($(nproc) / processes))
step torchrun --nproc-per-node "$processes" --no-python \
  inlay pretrain recipes/tabletop/denoiser.yaml "train.precision=$precision" "${run[@]}"
step python recipes/tabletop/export.py
step torchrun --nproc-per-node "$processes" --no-python \
  inlay tune recipes/tabletop/finish.yaml "train.precision=$precision" "${run[@]}"
step python recipes/tabletop/export.py
step python recipes/tabletop/noisy_classifier.py --threads 2 "${few[@]}"
step python recipes/tabletop/teach.py --threads 2 "${few[@]}"
step python recipes/tabletop/export.py
step python recipes/tabletop/teach.py --threads 2 --steps 4000 --rate 2e-4 --seed 1 --out build/tabletop/taught-again "${few[@]}"
step python recipes/tabletop/export.py
step python recipes/tabletop/teach.py --threads 2 --steps 8000 --rate 2e-4 --seed 2 --out build/tabletop/taught-third "${few[@]}"
step python recipes/tabletop/export.py
step python recipes/tabletop/denoiser.py
step python recipes/tabletop/quality.py "${measures[@]}"
step python recipes/tabletop/card.py
