#!/usr/bin/env bash
# Refinement of a network's predictions, on real OpenFWI maps of which that network has seen none.
# usage: COMP_SAMPLE_DATA=folder bash benchmarks/refinement_openfwi.sh [arguments of refinement.py]
# The folder holds openfwi_velocity/<Family>.npz. 100 maps a family are held out and at most 4,000
# others train configs/fwi/openfwi.yaml for 16 epochs; then benchmarks/refinement.py prints its table.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMP_SAMPLE_DATA:?set it to the folder with openfwi_velocity/}"
data=data/refinement maps="$COMP_SAMPLE_DATA/openfwi_velocity"
families="FlatVel_A CurveVel_A FlatFault_A"

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/simulate.py --maps "$maps" --families $families --skip 100 --count 4000 --out $data
run python scripts/simulate.py --maps "$maps" --families $families --count 100 --as-test --out ${data}_test
run python scripts/make_folds.py --data $data --folds 5
run accelerate launch scripts/train.py --config configs/fwi/openfwi.yaml name=refinement \
  data.folder=$data data.folds=$data/folds.csv 'folds=[all]' train.epochs=16 loader.workers=8
run accelerate launch scripts/predict.py --run runs/refinement --records ${data}_test/test --tta
run python benchmarks/refinement.py --predictions runs/refinement/fold_all/predictions/test.npy \
  --truth ${data}_test/test_truth.npy --records ${data}_test/test "$@"
