#!/bin/sh
# From packages and data to an exported model: ./train.sh DATA WORK OUT
# DATA: the data folder; WORK: caches, logs and checkpoints (about 9 GB); OUT: the exported model.
# Every step is skipped or resumed when its result is there already. STEPS and STEPS2 are the steps of the two phases.
set -eu
cd "$(dirname "$0")"
data=${1:-../../../shared/data} work=${2:-build} out=${3:-$2/export}
python=${PYTHON:-python3}
mkdir -p "$work"
export OMP_WAIT_POLICY=passive
# Huge pages spare a third of the time on CPUs, which goes into page faults otherwise.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1

[ -e "$work/text.pt" ] || $python distil_text.py --data "$data" --out "$work/text.pt"
if ! [ -e "$work/cache/complete" ]; then
    $python views.py --data "$data" --out "$work/cache" --part 0/2 &
    first=$!
    sleep 5
    $python views.py --data "$data" --out "$work/cache" --part 1/2
    wait $first
    touch "$work/cache/complete"
fi
$python train.py --data "$data" --cache "$work/cache" --text "$work/text.pt" --out "$work/phase1" --steps "${STEPS:-2600}"
$python train.py --data "$data" --cache "$work/cache" --text "$work/text.pt" --out "$work/phase2" --steps "${STEPS2:-1300}" \
    --init "$work/phase1/last.pt" --finetune --lr 5e-4 --seed 1
$python export.py --data "$data" --cache "$work/cache" --text "$work/text.pt" --checkpoint "$work/phase2/last.pt" --out "$out"
$python evaluate.py --data "$data" --model "$out"
$python evaluate.py --data "$data" --model "$out" --int8
