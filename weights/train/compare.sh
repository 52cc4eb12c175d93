#!/bin/sh
# Text cross-attention on against off, everything else alike: ./compare.sh DATA WORK [SEED…]
# WORK holds text.pt and the views in cache (or CACHE); the results go to RUNS. STEPS, BATCH and CALIBRATION (photos of each
# source) set the size of a run. The frozen trunk is the same in all of them and stays in float32.
# FLAGS are further options of train.py for both runs, such as "--generator maskformer"; KINDS leaves out "on" or "off"; with
# UNSEEN=1 the unseen names are left out of training and calibration, and their figures are told apart.
# Both runs of a seed go side by side on one core each, so that both meet the same load, or one after the other with
# ONE_BY_ONE=1. What is done already is skipped.
set -eu
cd "$(dirname "$0")"
data=$1 work=$2
shift 2
runs=${RUNS:-$work/compare}
cache=${CACHE:-$work/cache}
unseen=${UNSEEN:+--unseen}
python=${PYTHON:-python3}
export OMP_WAIT_POLICY=passive GLIBC_TUNABLES=glibc.malloc.hugetlb=1

one() {                                                                     # name of the run, its seed
    run="$runs/$1-$2"
    mkdir -p "$run"
    switch=$([ "$1" = on ] || echo --no-pmp)
    if ! [ -e "$run/trained" ]; then
        $python train.py --data "$data" --cache "$cache" --text "$work/text.pt" --out "$run" --processes 1 \
            --batch "${BATCH:-8}" --steps "${STEPS:-600}" --seed "$2" $switch $unseen ${FLAGS:-} >"$run/train.txt" 2>&1
        touch "$run/trained"
    fi
    [ -e "$run/export/config.json" ] || $python export.py --data "$data" --cache "$cache" --text "$work/text.pt" \
        --checkpoint "$run/last.pt" --out "$run/export" --per-source "${CALIBRATION:-12}" \
        --rounding-photos 0 $unseen >"$run/export.txt" 2>&1
    [ -e "$run/figures.json" ] || $python evaluate.py --data "$data" --model "$run/export" --json "$run/figures.json" \
        $unseen >"$run/evaluate.txt" 2>&1
}

for seed in "${@:-0}"; do
    for kind in ${KINDS:-on off}; do
        one "$kind" "$seed" &
        [ -z "${ONE_BY_ONE:-}" ] || wait $!
    done
    wait
done
