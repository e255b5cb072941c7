#!/usr/bin/env bash
# Networks side by side on real OpenFWI maps: trained on four fifths, judged on a fifth that nothing
# trains on, together, refined, and on the genuine test record.
# usage: COMP_SAMPLE_DATA=folder bash scripts/openfwi_table.sh CONFIG [CONFIG …] [-- train overrides]
# A config may bring overrides of its own, no lists: configs/fwi/hgnet_b2.yaml,train.epochs=95
# The folder is that of scripts/openfwi.sh. Finished steps are skipped when it is started again;
# REFINE (default 100) samples of each family are refined.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMP_SAMPLE_DATA:?set it to the folder with openfwi_velocity/ and kaggle_waveform_test/}"
configs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do configs+=("$1"); shift; done
[ ${#configs[@]} -gt 0 ] || { echo "error: no config given, expected configs/fwi/….yaml" >&2; exit 2; }
[ $# -eq 0 ] || shift
twice=$(printf '%s\n' "${configs[@]%%,*}" | sort | uniq -d) # a run is named after its config
[ -z "$twice" ] || { echo "error: $twice: given twice, expected each config once" >&2; exit 2; }
data=data/openfwi6 out=runs/table record=$COMP_SAMPLE_DATA/kaggle_waveform_test

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run python scripts/simulate.py --maps "$COMP_SAMPLE_DATA/openfwi_velocity" --count 5000 --shots 6 --out $data
[ -s $data/folds.csv ] || run python scripts/make_folds.py --data $data --folds 5
runs=() valid=() test=() named=()
for entry in "${configs[@]}"; do
  IFS=, read -r -a own <<<"$entry"
  config=${own[0]} own=("${own[@]:1}")
  name=table_$(basename "$config" .yaml)
  parts=runs/$name/fold_0/predictions
  run accelerate launch scripts/train.py --config "$config" "name=$name" 'folds=[0]' \
    data.folder=$data data.folds=$data/folds.csv "$@" ${own[@]+"${own[@]}"}
  run accelerate launch scripts/predict.py --run "runs/$name" --oof
  run accelerate launch scripts/predict.py --run "runs/$name" --records "$record"
  runs+=("runs/$name") valid+=("$parts/valid.npy") test+=("$parts/test.npy")
  named+=("$(basename "$config" .yaml)=$parts/valid.npy")
  truth=$parts/valid_truth.npy
done
mkdir -p $out
run python scripts/ensemble.py --predictions "${valid[@]}" --method median --out $out/valid.npy
run python scripts/ensemble.py --predictions "${test[@]}" --method median --out $out/test.npy
run python scripts/report.py "${runs[@]}" --markdown --curves $out/curves.png \
  --truth "$truth" --predictions "${named[@]}" together=$out/valid.npy
run python benchmarks/refinement.py --predictions $out/valid.npy --truth "$truth" --limit "${REFINE:-100}"
run accelerate launch scripts/refine.py --predictions $out/test.npy --records "$record" \
  --out $out/refined.npy
run python scripts/plot.py gathers --record "$record"/*.npy --velocity $out/refined.npy --out $out/gathers.png
