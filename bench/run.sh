#!/bin/sh
# Times our engine against onnxruntime-web: the same network, weights, picture and browser, one thread each, in turns.
#
#   bench/run.sh [--rounds 15] [--write]        --write: also to bench/results.md
#
# Needs the built site (./build.sh builds it), Node 20 or later, Chromium, and a Python with torch, onnx,
# onnxruntime, numpy and pillow for the export to ONNX, which is done again only when the weights or the export change.
# Set PYTHON, CHROMIUM or PACKAGE (the folder with engine.wasm and weights/) where the defaults do not fit.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PACKAGE=${PACKAGE:-$here/../dist/site/pmp}
PICTURE=../site/examples/astronaut.jpg
missing() { echo "bench: $1" >&2; exit 1; }

command -v node >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 20))' || missing "Node 20 or later is missing"
for program in chromium chromium-browser google-chrome; do
	[ -n "${CHROMIUM:-}" ] || CHROMIUM=$(command -v "$program") || true
done
command -v "${CHROMIUM:-}" >/dev/null || missing "Chromium is missing: install it or set CHROMIUM"
[ -f "$PACKAGE/engine.wasm" ] || missing "$PACKAGE/engine.wasm is missing: run ./build.sh first"
[ -f "$PACKAGE/weights/manifest.json" ] || missing "$PACKAGE/weights/manifest.json is missing: there are no weights in this build"
PACKAGE=$(cd "$PACKAGE" && pwd)
cd "$here"
[ -d node_modules/onnxruntime-web ] || npm ci --ignore-scripts --no-audit --no-fund >&2

stamp=$(cat "$PACKAGE/weights/manifest.json" export.py ../weights/train/network.py ../weights/train/text.py "$PICTURE" | sha256sum)
if [ ! -f .cache/stamp ] || [ "$(cat .cache/stamp)" != "$stamp" ]; then
	PYTHON=${PYTHON:-python3}
	"$PYTHON" -c 'import torch, onnx, onnxruntime, numpy, PIL' 2>/dev/null ||
		missing "$PYTHON has not all of torch, onnx, onnxruntime, numpy and pillow: install them or set PYTHON"
	echo "bench: exporting the network to ONNX" >&2
	"$PYTHON" -W ignore export.py --weights "$PACKAGE/weights" --picture "$PICTURE" --out .cache >&2
	printf %s "$stamp" >.cache/stamp
fi
exec node bench.mjs --package "$PACKAGE" --onnx .cache --picture "$PICTURE" --chromium "$CHROMIUM" "$@"
