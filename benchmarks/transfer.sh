#!/usr/bin/env bash
# What transfer buys: a network trained on as many samples of each kind, judged on a fifth of the real
# OpenFWI maps that nothing trains on; MAE in m/s by family, and what each has cost and had when.
#   real         real maps and their stored records, again and again
#   online-real  real maps and blends, crops, warps of them, simulated as training goes
#   generated    maps of the generators alone
#   pretrained   half the budget as generated, then from these weights half as online-real
#   mixed        as online-real, a sixth generated
#   imagenet     as mixed, from a local file IMAGENET of timm's ImageNet weights (.safetensors, .pth)
# usage: COMP_SAMPLE_DATA=folder bash benchmarks/transfer.sh [CONFIG] [-- train overrides]
# The folder is that of scripts/openfwi.sh; at most COUNT (5000) maps a family are used. BUDGET
# (327680) samples are cut to whole epochs of the real maps. ONLY="real mixed" trains these alone, so
# that GPUs can share the list, ONLY= none. Finished steps are skipped when it is started again.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 2; }
: "${COMP_SAMPLE_DATA:?set it to the folder with openfwi_velocity/}"
config=configs/fwi/hgnet_b2.yaml kinds="real online-real generated pretrained mixed imagenet"
budget=${BUDGET:-327680} only=${ONLY-$kinds} imagenet=${IMAGENET:-}
if [ $# -gt 0 ] && [ "$1" != -- ]; then config=$1; shift; fi
[ "${1:---}" = -- ] || fail "got '$1' after the config, expected -- before train overrides"
[ $# -eq 0 ] || shift
[ -f "$config" ] || fail "$config: no such file, expected a config as in configs/fwi"
[[ $budget =~ ^[1-9][0-9]*$ ]] || fail "BUDGET: got '$budget', expected a number of samples"
[ -z "$imagenet" ] || [ -f "$imagenet" ] || fail "IMAGENET: $imagenet: no such file"
for kind in $only; do [[ " $kinds " = *" $kind "* ]] || fail "ONLY: got '$kind', expected some of: $kinds"; done
taken='^(name|root|folds|data\..*|online\..*|model\.(pretrained|weights)|train\.(epochs|early_stop|start_from))='
for each in "$@"; do
  [[ ! $each =~ $taken || $each = model.pretrained=false ]] || fail "$each: is set here for every run"
done
data=data/openfwi6 base=transfer_$(basename "$config" .yaml)
export TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 # else the first run would compile for the others

run() { # print a command as it could be typed, then run it
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

{ # one after the other, where several share the list
  flock 9
  run python scripts/simulate.py --maps "$COMP_SAMPLE_DATA/openfwi_velocity" --count "${COUNT:-5000}" \
    --shots 6 --out $data
  [ -s $data/folds.csv ] || run python scripts/make_folds.py --data $data --folds 5
} 9<benchmarks/transfer.sh

given=("$@" data.folder=$data data.folds=$data/folds.csv 'folds=[0]' model.pretrained=false train.early_stop=null)
epoch=$(python benchmarks/transfer.py epoch --config "$config" "${given[@]}")
epochs=$((budget / epoch)) half=$((budget / epoch / 2))
[ $half -gt 0 ] || fail "BUDGET: got $budget, expected at least two epochs of the real maps, $((2 * epoch))"
online="online.samples=$epoch online.stored=false online.mirror=0"
maps="$online online.real=1 online.blend=2 online.crop=1 online.warp=1"
alone="$online online.real=0 online.blend=0 online.crop=0 online.warp=0 online.generated=1"

train() { # KIND EPOCHS overrides …
  run accelerate launch scripts/train.py --config "$config" "name=${base}_$1" "${given[@]}" "train.epochs=$2" "${@:3}"
}

for kind in $only; do
  case $kind in
    real) train real $epochs online.samples=0 online.stored=true ;;
    online-real) train online-real $epochs $maps online.generated=0 ;;
    generated) train generated $epochs $alone ;;
    pretrained)
      train pretrained_1 $half $alone
      train pretrained_2 $((epochs - half)) $maps online.generated=0 "train.start_from=runs/${base}_pretrained_1" ;;
    mixed) train mixed $epochs $maps online.generated=1 ;;
    imagenet)
      [ -n "$imagenet" ] || { echo "imagenet: skipped, IMAGENET names no file of weights"; continue; }
      train imagenet $epochs $maps online.generated=1 "model.weights=$imagenet" ;;
  esac
done

runs=() named=()
for kind in $kinds; do
  parts=("runs/${base}_$kind")
  [ $kind != pretrained ] || parts=("runs/${base}_pretrained_1" "runs/${base}_pretrained_2")
  [ -f "${parts[-1]}/fold_0/done.json" ] || { echo "$kind: not in the tables, not finished"; continue; }
  runs+=("${parts[@]}") named+=("$kind=$(IFS=+; echo "${parts[*]}")")
done
[ ${#runs[@]} -gt 0 ] || exit 0
run python scripts/report.py "${runs[@]}" --markdown --curves "runs/$base.png"
run python benchmarks/transfer.py times "${named[@]}" --until real online-real
