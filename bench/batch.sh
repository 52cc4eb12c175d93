#!/usr/bin/env bash
# Photos a second of the pipeline (batch/) with an engine on one core and on two, beside `pmp segment` in a loop.
#
#   bench/batch.sh PHOTOS [PROMPTS]
#
#   PHOTOS   a folder of JPEGs
#   PROMPTS  with commas between them (default: dog,sofa)
#
# The overhead is what the pipeline takes beyond its engines: the time between one photo and all of them, which leaves out
# what starting takes, over the time that the engines say they took.
set -euo pipefail
photos=$(realpath "${1:?a folder of JPEGs}")
prompts=${2:-dog,sofa}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/pmp" ./cmd/pmp
go -C batch build -o "$work/batch" .
IFS=, read -ra words <<<"$prompts"
shopt -s nullglob
all=("$photos"/*.jpg)
[ ${#all[@]} -gt 1 ] || { echo "bench: $photos has no two JPEGs" >&2 && exit 1; }

# Prints the seconds that a command takes; what it says goes to $work/log.
took() {
	local start=$EPOCHREALTIME
	"$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }
	awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
loop() { for f in "${all[@]}"; do "$work/pmp" segment "$f" "${words[@]}" -json; done; }

n=${#all[@]}
echo "$n photos, prompts $prompts, $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg) before"
awk -v n="$n" -v t="$(took loop)" 'BEGIN { printf "%-28s %6.2f photos/s\n", "pmp segment in a loop", n / t }'
for cores in 1 2; do
	one=$(GOMAXPROCS=$cores took "$work/batch" -in "${all[0]}" -out "$work/one$cores" -prompts "$prompts")
	t=$(GOMAXPROCS=$cores took "$work/batch" -in "$photos/*.jpg" -out "$work/all$cores" -prompts "$prompts")
	engine=$(sed -n 's/.* \([0-9.]*\) s a photo.*/\1/p' "$work/log")
	awk -v n="$n" -v t="$t" -v one="$one" -v engine="$engine" -v cores="$cores" 'BEGIN {
		printf "%-28s %6.2f photos/s, start %.1f s, %.3f s of engine a photo, overhead %.0f %%\n", "pipeline, " cores " core(s)", n / t, one, engine,
			100 * ((t - one) * cores / ((n - 1) * engine) - 1) }'
done
