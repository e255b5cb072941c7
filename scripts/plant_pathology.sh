#!/usr/bin/env bash
# Plant Pathology's leaves to a table of out-of-fold mean F1: five folds, mirrored views, rules.
# usage: COMP_SAMPLE_DATA=folder bash scripts/plant_pathology.sh [train overrides, e.g. loader.workers=8]
# The folder holds plant_pathology_2021/ with train.csv and train_images/, as the competition has them.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMP_SAMPLE_DATA:?set it to the folder with plant_pathology_2021/}"
data=data/plant_pathology run=runs/plant_pathology

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/prepare.py --task image --competition plant_pathology \
  --raw "$COMP_SAMPLE_DATA/plant_pathology_2021" --out $data
run python scripts/make_folds.py --task image --data $data --folds 5 --picture $data/folds.png
run accelerate launch scripts/train.py --config configs/image/plant_pathology.yaml "$@"
run accelerate launch scripts/predict.py --run $run --oof --tta
run python scripts/ensemble.py --join-folds $run/fold_*/predictions/valid.npy \
  --ids $data/folds.csv --out $run/oof.npy
run python scripts/rules.py --data $data --oof $run/oof.npy --out $run/rule.json
run python scripts/plot.py classes --data $data --oof $run/oof.npy --out $run/classes.png
