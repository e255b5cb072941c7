#!/usr/bin/env bash
# The whole way on simulated data, every step a command that can be run again alone.
# usage: bash scripts/demo.sh   (with the virtual environment active)
set -euo pipefail
cd "$(dirname "$0")/.."
families="FlatVel_A CurveVel_A FlatFault_A CurveFault_A"
test=data/fwi_demo_test

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/simulate.py --families $families --count 150 --shard-size 50 --out data/fwi_demo
run python scripts/simulate.py --families $families --count 15 --as-test --out $test
run python scripts/make_folds.py --data data/fwi_demo --folds 2
run accelerate launch scripts/train.py --config configs/fwi/demo.yaml
run accelerate launch scripts/predict.py --run runs/fwi_demo --oof --tta
run accelerate launch scripts/predict.py --run runs/fwi_demo --records $test/test --tta
run python scripts/ensemble.py --join-folds runs/fwi_demo/fold_*/predictions/valid.npy \
  --ids data/fwi_demo/folds.csv --out runs/fwi_demo/oof.npy
run python scripts/ensemble.py --predictions runs/fwi_demo/fold_*/predictions/test.npy \
  --out runs/fwi_demo/test.npy
run python scripts/submit.py --predictions runs/fwi_demo/test.npy \
  --sample $test/sample_submission.csv --out submissions/fwi_demo.csv
run python scripts/score.py --submission submissions/fwi_demo.csv --truth $test/test_truth.npy \
  --train data/fwi_demo --predictions runs/fwi_demo/test.npy --records $test/test \
  --picture submissions/fwi_demo.png
