#!/usr/bin/env bash
# Real OpenFWI maps to a scored out-of-fold table, and the genuine test record to its 70 rows.
# usage: COMP_SAMPLE_DATA=folder bash scripts/openfwi.sh [train overrides, e.g. loader.workers=8]
# The folder holds openfwi_velocity/<Family>.npz and kaggle_waveform_test/<oid>.npy.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMP_SAMPLE_DATA:?set it to the folder with openfwi_velocity/ and kaggle_waveform_test/}"
parts=runs/openfwi/fold_*/predictions

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/simulate.py --maps "$COMP_SAMPLE_DATA/openfwi_velocity" --count 1000 --out data/openfwi
run python scripts/make_folds.py --data data/openfwi --folds 5
run accelerate launch scripts/train.py --config configs/fwi/openfwi.yaml "$@"
run accelerate launch scripts/predict.py --run runs/openfwi --oof --tta
run python scripts/ensemble.py --join-folds $parts/valid.npy \
  --ids data/openfwi/folds.csv --out runs/openfwi/oof.npy
run python scripts/ensemble.py --join-folds $parts/valid_truth.npy \
  --ids data/openfwi/folds.csv --out runs/openfwi/truth.npy
run python scripts/submit.py --predictions runs/openfwi/oof.npy --out submissions/openfwi_oof.csv
run python scripts/score.py --submission submissions/openfwi_oof.csv \
  --truth runs/openfwi/truth.npy --train data/openfwi --predictions runs/openfwi/oof.npy \
  --picture submissions/openfwi_oof.png
run accelerate launch scripts/predict.py --run runs/openfwi --tta \
  --records "$COMP_SAMPLE_DATA/kaggle_waveform_test"
run python scripts/ensemble.py --predictions $parts/test.npy --out runs/openfwi/test.npy
run python scripts/submit.py --predictions runs/openfwi/test.npy --out submissions/openfwi.csv
