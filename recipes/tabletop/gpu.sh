#!/usr/bin/env bash
# Makes the embedded base on a machine with a GPU and many cores, by the clock: under ten minutes where build.sh takes
# hours. As build.sh does, it replaces the base and the judge in src/. It needs no network and no virtual environment;
# packages that $PYTHON lacks may lie in a folder that PYTHONPATH names:
#
#   OUT=/some/folder PYTHON=python3 bash recipes/tabletop/gpu.sh
#
# Everything that is worth bringing back is in $OUT afterwards, where that is set, also when a stage has failed. In a
# checkout, put it in place with:  cat OUT/base.tar.* | tar x
set -uo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
CORES=${CORES:-$(nproc)}
BUDGET=${BUDGET:-570}                   # seconds for all of it; the denoiser trains for what the rest leaves
IMAGES=${IMAGES:-100000}                # training pictures, the same for every part
CLIP_SECONDS=${CLIP_SECONDS:-90}        # of training; clip, decoder, judge and the cache of latents go side by side
DECODER_SECONDS=${DECODER_SECONDS:-90}
JUDGE_SECONDS=${JUDGE_SECONDS:-45}
REFINE_SECONDS=${REFINE_SECONDS:-60}    # the image side alone, beside the denoiser
SETUP_SECONDS=${SETUP_SECONDS:-60}      # what a script takes at most beyond its training: loading, measuring
PREPARE_SECONDS=${PREPARE_SECONDS:-70}  # what the denoiser's run takes beyond its training: captions, saving
FINISH_SHARE=${FINISH_SHARE:-33}        # per cent of the denoiser's training that finish.yaml gets, as on CPUs
FINISH_PREPARE_SECONDS=${FINISH_PREPARE_SECONDS:-45}
TEACH_SHARE=${TEACH_SHARE:-25}          # per cent that teach.py gets
TEACH_PREPARE_SECONDS=${TEACH_PREPARE_SECONDS:-30}
NOISY_SECONDS=${NOISY_SECONDS:-60}      # the classifier that teaches, beside the denoiser
QUALITY_SECONDS=${QUALITY_SECONDS:-75}  # export, quality and card
CLIP_BATCH=${CLIP_BATCH:-1024}
DECODER_BATCH=${DECODER_BATCH:-64}
JUDGE_BATCH=${JUDGE_BATCH:-256}
DENOISER_BATCH=${DENOISER_BATCH:-1024}
DENOISER_RATE=${DENOISER_RATE:-1.5e-3}
FINISH_RATE=${FINISH_RATE:-1e-3}
NOISY_BATCH=${NOISY_BATCH:-512}
TEACH_BATCH=${TEACH_BATCH:-512}
TEACH_RATE=${TEACH_RATE:-8e-4}
QUALITY_OPTIONS=${QUALITY_OPTIONS:-}    # of quality.py

BUILD=build/tabletop
LOGS=$BUILD/logs
RESULTS=recipes/tabletop/results
BASE=src/inlay/base/tabletop
JUDGE=src/inlay/metrics/tabletop_judge
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export INLAY_CACHE="$PWD/$BUILD/cache"

left() { echo $((BUDGET - SECONDS)); }

# Runs a command with a log and at most so many seconds; says how long it took.
stage() {
  local name=$1 limit=$2 begin=$SECONDS status=0
  shift 2
  timeout --foreground -k 5 "$((limit > 1 ? limit : 1))" "$@" >"$LOGS/$name.log" 2>&1 || status=$?
  printf '%-10s %4d s, done at %4d s%s\n' "$name" "$((SECONDS - begin))" "$SECONDS" \
    "$( ((status)) && echo ", FAILED with $status (124: out of time)")" | tee -a "$LOGS/stages.txt"
  if ((status)); then tail -n 15 "$LOGS/$name.log"; fi
  return "$status"
}

# A stage without which nothing that follows makes sense.
must() { stage "$@" || exit 1; }

# Called twice, so that a kill at the very end loses the figures at most.
collect() {
  [ -n "${OUT:-}" ] || return 0
  mkdir -p "$OUT"
  rm -f "$OUT"/base.tar.*
  # In parts, for ways back that limit the size of a file.
  tar c "$BASE" "$JUDGE" "$RESULTS" "$LOGS" $(ls -d $BUILD/{denoiser,finish}/{record.json,trace.jsonl} 2>/dev/null) |
    split -b 15M -d - "$OUT/base.tar."
  cp "$LOGS/stages.txt" "$OUT"
  for file in "$RESULTS"/{quality.json,samples.png}; do
    if [ "$file" -nt "$LOGS/check.log" ]; then cp "$file" "$OUT"; fi
  done
}

INLAY=("$PYTHON" -c 'import sys; from inlay.cli.main import main; sys.exit(main())')
DENOISER=(pretrain recipes/tabletop/denoiser.yaml "data.count=$IMAGES" data.validation=128 preview.every=null)
FINISH=(tune recipes/tabletop/finish.yaml "data.count=$IMAGES" data.validation=128 preview.pictures=1)
BY_CLOCK=("train.batch_size=$DENOISER_BATCH" train.checkpoint_every=null train.validate_every=1000000)

# Draws the denoiser's pictures and keeps their latents and masks while the others train: the encoder is known before
# the decoder has learnt anything. Captions do not matter to latents; one for all keeps this short.
latents() {
  for _ in $(seq 600); do
    grep -q psnr_of_linear "$LOGS/decoder.log" 2>/dev/null && break
    sleep 0.2
  done
  cp -r "$BASE" $BUILD/early
  cp $BUILD/autoencoder/vae/* $BUILD/early/vae/
  stage halve "$SETUP_SECONDS" "$PYTHON" -c 'import sys, diffusers
diffusers.AutoencoderKL.from_pretrained(sys.argv[1]).half().save_pretrained(sys.argv[1])' $BUILD/early/vae &&
    stage latents $((CLIP_SECONDS + 2 * SETUP_SECONDS)) nice -n 5 "${INLAY[@]}" "${DENOISER[@]}" base=$BUILD/early \
      data.prompt=toy train.steps=1 train.minutes=null train.batch_size=1 \
      train.schedule.warmup_steps=0 preview.pictures=1 preview.steps=1 \
      output=$BUILD/warm
}

rm -rf $LOGS $BUILD/{early,warm,autoencoder,clip,clip-refined,classifier,denoiser,finish,noisy-classifier,taught*} \
  $RESULTS/clip-refined.json
mkdir -p $LOGS
: >$LOGS/stages.txt
trap collect EXIT

must check "$SETUP_SECONDS" "$PYTHON" -c 'import accelerate, diffusers, inlay, matplotlib, peft, pydantic, scipy, torch, transformers
print(*(f"{one.__name__} {one.__version__}" for one in (torch, diffusers, transformers, peft, pydantic)), sep="\n")
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "NO GPU: everything runs on the CPU")'
cat $LOGS/check.log
must pictures $((BUDGET / 3)) "$PYTHON" recipes/tabletop/pictures.py --images "$IMAGES"
must tokenizer "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/tokenizer.py

stage clip $((CLIP_SECONDS + SETUP_SECONDS)) "$PYTHON" recipes/tabletop/clip.py --threads 4 --images "$IMAGES" \
  --batch "$CLIP_BATCH" --steps 1000000 --seconds "$CLIP_SECONDS" &
clip=$!
stage decoder $((DECODER_SECONDS + SETUP_SECONDS)) "$PYTHON" recipes/tabletop/autoencoder.py --threads 4 \
  --images "$IMAGES" --batch "$DECODER_BATCH" --steps 1000000 --seconds "$DECODER_SECONDS" &
decoder=$!
stage judge $((JUDGE_SECONDS + SETUP_SECONDS)) "$PYTHON" recipes/tabletop/classifier.py --threads 4 \
  --images "$IMAGES" --batch "$JUDGE_BATCH" --steps 1000000 --seconds "$JUDGE_SECONDS" &
judge=$!
latents &
wait "$clip" && wait "$decoder" || exit 1
# Without a new judge the shipped one stays, which serves as well.
wait "$judge" && cp $BUILD/classifier/{model.safetensors,config.json} $JUDGE/
wait
must export "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/export.py

seconds=$(($(left) - PREPARE_SECONDS - FINISH_PREPARE_SECONDS - TEACH_PREPARE_SECONDS - QUALITY_SECONDS))
((seconds >= 3)) || { echo "no time is left for the denoiser" && exit 1; }
stage refine $((REFINE_SECONDS + SETUP_SECONDS)) "$PYTHON" recipes/tabletop/clip.py --threads 2 --images "$IMAGES" \
  --batch "$CLIP_BATCH" --steps 1000000 --seconds "$REFINE_SECONDS" --rate 5e-4 --refine $BUILD/clip/model \
  --out $BUILD/clip-refined --results $RESULTS/clip-refined.json &
refine=$!
stage noisy $((NOISY_SECONDS + SETUP_SECONDS)) "$PYTHON" recipes/tabletop/noisy_classifier.py --threads 2 \
  --images "$IMAGES" --batch "$NOISY_BATCH" --steps 1000000 --seconds "$NOISY_SECONDS" &
noisy=$!
minutes() { echo "train.minutes=$(awk "BEGIN { print $1 / 60 }")"; }
must denoiser $(($(left) - 20)) "${INLAY[@]}" "${DENOISER[@]}" "${BY_CLOCK[@]}" "train.learning_rate=$DENOISER_RATE" \
  "$(minutes $((seconds * (100 - FINISH_SHARE - TEACH_SHARE) / 100)))"
# The refined image side is kept where it finds more, in the worse direction, than the one that learnt with the text.
wait "$refine" && "$PYTHON" -c 'import json, sys
worse = [min(json.load(open(path))["test"][way] for way in ("image_to_text", "text_to_image")) for path in sys.argv[1:]]
print("retrieval before and after refining", worse)
sys.exit(worse[1] <= worse[0])' $RESULTS/clip.json $RESULTS/clip-refined.json ||
  rm -rf $BUILD/clip-refined $RESULTS/clip-refined.json
must export "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/export.py
# What is exported is tuned; without that it ships as it is.
seconds=$(($(left) - FINISH_PREPARE_SECONDS - TEACH_PREPARE_SECONDS - QUALITY_SECONDS))
seconds=$((seconds * FINISH_SHARE / (FINISH_SHARE + TEACH_SHARE)))
((seconds >= 3)) && stage finish $(($(left) - 20)) "${INLAY[@]}" "${FINISH[@]}" "${BY_CLOCK[@]}" \
  "train.learning_rate=$FINISH_RATE" "$(minutes "$seconds")" || rm -rf $BUILD/finish
must export "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/export.py
seconds=$(($(left) - TEACH_PREPARE_SECONDS - QUALITY_SECONDS))
((seconds >= 3)) && wait "$noisy" && stage teach $(($(left) - 20)) "$PYTHON" recipes/tabletop/teach.py --threads 4 \
  --images "$IMAGES" --batch "$TEACH_BATCH" --rate "$TEACH_RATE" --steps 1000000 --seconds "$seconds" ||
  rm -rf $BUILD/taught
"$PYTHON" recipes/tabletop/denoiser.py >$LOGS/account.log 2>&1
must export "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/export.py
collect
stage quality $(($(left) + 20)) "$PYTHON" recipes/tabletop/quality.py --threads "$CORES" $QUALITY_OPTIONS &&
  stage card "$SETUP_SECONDS" "$PYTHON" recipes/tabletop/card.py
