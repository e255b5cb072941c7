#!/usr/bin/env bash
# The whole way on images: tags of emoji, every step a command that can be run again alone.
# usage: bash scripts/demo_image.sh   (with the virtual environment active; npm or curl brings the
# images, 60 MB)
set -euo pipefail
cd "$(dirname "$0")/.."
data=data/emoji

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

fetch() { # an archive of the npm registry into data/npm, once: name, version
  local archive=data/npm/$1-$2.tgz
  [ -s "$archive" ] && return
  mkdir -p data/npm
  if command -v npm >/dev/null; then
    run npm pack --silent --pack-destination data/npm "$1@$2"
  else
    run curl -fsSL -o "$archive.part" "https://registry.npmjs.org/$1/-/$1-$2.tgz"
    mv "$archive.part" "$archive"
  fi
}

fetch emoji-datasource-google 16.0.0
fetch emojibase-data 17.0.0
run python scripts/prepare.py emoji --raw data/npm --out $data
run python scripts/make_folds.py --task image --data $data --folds 2 --picture $data/folds.png
run python scripts/plot.py batch --config configs/image/demo.yaml --out $data/batch.png
run accelerate launch scripts/train.py --config configs/image/demo.yaml
run accelerate launch scripts/predict.py --run runs/emoji --oof --tta
run accelerate launch scripts/predict.py --run runs/emoji --test $data/raw --tta
run python scripts/ensemble.py --join-folds runs/emoji/fold_*/predictions/valid.npy \
  --ids $data/folds.csv --out runs/emoji/oof.npy
run python scripts/ensemble.py --predictions runs/emoji/fold_*/predictions/test.npy \
  --out runs/emoji/test.npy
run python scripts/rules.py --data $data --oof runs/emoji/oof.npy --out runs/emoji/rule.json
run python scripts/submit.py --task image --data $data --rule runs/emoji/rule.json \
  --predictions runs/emoji/test.npy --sample $data/raw/sample_submission.csv \
  --out submissions/emoji.csv
run python scripts/score.py --task image --submission submissions/emoji.csv \
  --truth $data/raw/test_truth.npy --train $data
run python scripts/plot.py worst --data $data --oof runs/emoji/oof.npy --out submissions/emoji.png
