#!/usr/bin/env bash
# Bengali graphemes rendered from fonts: three heads, scored on known and on unknown graphemes.
# usage: FONTS='font.ttf …' bash scripts/graphemes.sh [train overrides, e.g. loader.workers=8]
# Debian's fonts-noto-core and fonts-lohit-beng-bengali bring five Bengali fonts. One network
# validates on a fifth of the images, one on a fifth of the graphemes, of which it has seen none.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${FONTS:?set it to Bengali font files, separated by spaces}"
data=data/graphemes

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/prepare.py graphemes --fonts $FONTS --out $data
run python scripts/make_folds.py --task image --data $data
run python scripts/make_folds.py --task image --data $data --group grapheme --out $data/unseen.csv
for split in folds unseen; do
  name=graphemes_$split
  run accelerate launch scripts/train.py --config configs/image/graphemes.yaml name=$name \
    data.folds=$data/$split.csv "$@"
  run accelerate launch scripts/predict.py --run runs/$name --oof
  run python scripts/rules.py --data $data --oof runs/$name/fold_0/predictions/valid.npy \
    --out runs/$name/rule.json
done
run accelerate launch scripts/predict.py --run runs/graphemes_folds --test $data/raw
run python scripts/submit.py --task image --data $data --rule runs/graphemes_folds/rule.json \
  --predictions runs/graphemes_folds/fold_0/predictions/test.npy \
  --sample $data/raw/sample_submission.csv --out submissions/graphemes.csv
run python scripts/score.py --task image --submission submissions/graphemes.csv \
  --truth $data/raw/test_truth.npy --train $data
