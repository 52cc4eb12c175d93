#!/usr/bin/env bash
# Times our engine beside onnxruntime-web and LiteRT.js: the same network, weights, picture and browser, in turns.
#
#   bench/run.sh [-write] [-json] [-rounds 15] [-loads 3] [-only REGEXP] [-ops] [-software]
#
#   -write   the table also goes to bench/results.md
#   -json    prints {"machine":…,"runs":[…],"ops":…} and nothing else
#   -only    only the rows whose "engine threads" fits, like 'int8 1'; on a graphics card "engine webgpu"
#   -ops     only our engine, op by op
#   -software  the rows on the graphics card even where that is a program on the processor: slow, for correctness only
#
# Where Chromium has a graphics card for WebGPU, ours and onnxruntime-web run there too; elsewhere a line says why not.
# Needs Go, the built site (./build.sh builds it), Node 20 or later, Chromium, and a Python with torch, onnx, onnxruntime,
# numpy and pillow, which brings the network to ONNX; this is done again only when the weights or the export change. The rows
# of LiteRT.js need a Python with litert-torch 0.10.0, ai-edge-quantizer 0.10.0 and pillow, and are left out without it.
# Set PYTHON, LITERT_PYTHON, CHROMIUM or PACKAGE (the folder with engine.wasm and weights/) where the defaults do not fit.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PACKAGE=${PACKAGE:-$here/../dist/site/pmp}
PYTHON=${PYTHON:-python3}
LITERT_PYTHON=${LITERT_PYTHON:-$PYTHON}
PICTURES=$here/../site/examples
say() { echo "bench: $1" >&2; }
missing() { say "$1"; exit 1; }

options=()
for option in "$@"; do
	case $option in
	-[a-z][a-z]*) options+=("-$option") ;; # Go's way of writing options
	*) options+=("$option") ;;
	esac
done

command -v go >/dev/null || missing "Go is missing"
command -v node >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || missing "Node 20 or later is missing"
for program in chromium chromium-browser google-chrome; do
	[ -n "${CHROMIUM:-}" ] || CHROMIUM=$(command -v "$program") || true
done
command -v "${CHROMIUM:-}" >/dev/null || missing "Chromium is missing: install it or set CHROMIUM"
[ -f "$PACKAGE/engine.wasm" ] || missing "$PACKAGE/engine.wasm is missing: run ./build.sh first"
[ -f "$PACKAGE/weights/manifest.json" ] || missing "$PACKAGE/weights/manifest.json is missing: there are no weights in this build"
PACKAGE=$(cd "$PACKAGE" && pwd)
cd "$here"
if [ ! -f node_modules/.stamp ] || ! cmp -s package-lock.json node_modules/.stamp; then
	npm ci --ignore-scripts --no-audit --no-fund >&2
	cp package-lock.json node_modules/.stamp
fi
mkdir -p .cache

# Whether $1.stamp does not yet name what an export depends on; $2 is the export's program.
outdated() {
	stamp=$(cat "$PACKAGE/weights/manifest.json" "$2" graphs.py ../weights/train/{network,text}.py "$PICTURES"/*.jpg | sha256sum)
	[ ! -f ".cache/$1.stamp" ] || [ "$(cat ".cache/$1.stamp")" != "$stamp" ]
}
arguments=(--weights "$PACKAGE/weights" --examples "$PICTURES" --out .cache)
if outdated onnx export.py; then
	"$PYTHON" -c 'import torch, onnx, onnxruntime, numpy, PIL' 2>/dev/null ||
		missing "$PYTHON has not all of torch, onnx, onnxruntime, numpy and pillow: install them or set PYTHON"
	say "exporting the network to ONNX"
	"$PYTHON" -W ignore export.py "${arguments[@]}" >&2
	printf %s "$stamp" >.cache/onnx.stamp
fi
if outdated litert export_litert.py; then
	rm -f .cache/*.tflite # of other weights
	if "$LITERT_PYTHON" -c 'import litert_torch, ai_edge_quantizer, PIL' 2>/dev/null; then
		say "exporting the network to LiteRT"
		"$LITERT_PYTHON" -W ignore export_litert.py "${arguments[@]}" >.cache/litert.log 2>&1 ||
			{ tail -n 20 .cache/litert.log >&2; missing "the export to LiteRT failed"; }
		printf %s "$stamp" >.cache/litert.stamp
	else
		say "the rows of LiteRT.js are left out: $LITERT_PYTHON lacks them; pip install litert-torch==0.10.0 ai-edge-quantizer==0.10.0 pillow, or set LITERT_PYTHON"
	fi
fi
for precision in f32 int8; do
	(cd .. && go run ./bench/ops -precision $precision) >.cache/ops-$precision.json
done
exec node bench.mjs --package "$PACKAGE" --cache .cache --pictures "$PICTURES" --chromium "$CHROMIUM" ${options[@]+"${options[@]}"}
