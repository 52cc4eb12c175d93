#!/usr/bin/env bash
# Builds, serves and tests everything. One line a step; the first failure stops it and says
# what to do. Needs Go; what else a step needs, it names when it is missing.
set -u
cd "$(dirname "$0")"

npm=dist/npm   # the npm package, unpacked
site=dist/site # the demo page, ready for any static host
worker=dist/worker # the Cloudflare Worker that answers /api/*

# Budgets in bytes: what a first visitor downloads.
engine_budget=900000
weights_budget=16000000
bases_budget=1000000 # of the engine for public checkpoints, whose weights have 40 MB and more
# Cloudflare takes no larger file as a static asset.
asset_limit=$((25 << 20))

usage() {
	cat <<'END'
./build.sh           build the npm package (dist/npm) and the site (dist/site), print their sizes
./build.sh serve     build what is missing, serve the site and print its address
./build.sh test      run all tests, in Chromium and Firefox too (PMP_SKIP_BROWSERS=1: without them)
./build.sh bench     compare speed with other engines (bench/run.sh)
./build.sh deploy    upload site and Worker to Cloudflare (needs Node and an account; --dry-run: without)
./build.sh pack      build without printing sizes
END
}

step() { printf '%-34s' "$1" && began=$SECONDS; }
done_() { # what came of it; a step that took a while says so
	local took=$((SECONDS - began))
	[ $took -lt 10 ] && took="" || took=", $took s"
	echo "${1:-ok}$took"
}
stop() { # what went wrong, what to do
	echo "failed"
	printf '%s\n' "$@" >&2
	exit 1
}

# Runs a command quietly; if it fails, shows what it printed and stops with advice.
try() {
	local advice=$1 out
	shift
	if ! out=$("$@" 2>&1); then
		echo "failed"
		printf '%s\n\n%s\n' "$out" "$advice" >&2
		exit 1
	fi
}

# What the tests that failed or did not come to an end printed, of all that "go test -v" did.
said() {
	awk '/^=== (RUN|NAME|CONT) / { test = $3; next }
		/^=== / { next }
		/^ *--- (PASS|SKIP): / { delete lines[$3]; next }
		/^ *--- FAIL: / { printf "%s%s\n", lines[$3], $0; delete lines[$3]; test = ""; next }
		/^(ok|PASS|\?)/ { delete lines; test = ""; next }
		{ lines[test] = lines[test] $0 "\n" }
		/^FAIL/ { for (t in lines) printf "%s", lines[t]; delete lines; test = "" }' "$1"
}

# Runs Go tests and counts them; if one fails, shows what the failing ones printed.
passed=0
tests() {
	local advice=$1 log
	shift
	log=$(mktemp)
	if ! "$@" -v >"$log" 2>&1; then
		echo "failed"
		said "$log" | tail -n 200 >&2
		printf '\n%s\n' "$advice" >&2
		rm -f "$log"
		exit 1
	fi
	local n
	n=$(grep -cE '^ *--- PASS' "$log")
	rm -f "$log"
	passed=$((passed + n))
	done_ "$n passed"
}

have() { command -v "$1" >/dev/null 2>&1; }

need_go() {
	have go || stop "Go is missing. Install Go 1.26 or newer from https://go.dev/dl/ and put it on the PATH."
}

pack() {
	step "engine"
	need_go
	mkdir -p $npm/weights
	try "The engine does not compile; the messages above name the file and line." \
		env GOOS=js GOARCH=wasm go build -trimpath -ldflags="-s -w" -o $npm/engine.wasm ./wasm
	try "The engine for public checkpoints does not compile; the messages above name the file and line." \
		env GOOS=js GOARCH=wasm go build -tags bases -trimpath -ldflags="-s -w" -o $npm/engine-bases.wasm ./wasm
	done_

	step "npm package"
	[ -f weights/default/manifest.json ] ||
		stop "weights/default/manifest.json is missing: fetch the whole repository, or train a model (weights/train)."
	cp js/*.js js/*.d.ts js/package.json $npm/
	[ -f js/README.md ] && cp js/README.md $npm/
	# Go's own JavaScript must be of the very version that compiled the engine.
	rm -f $npm/wasm_exec.js
	cp "$(go env GOROOT)/lib/wasm/wasm_exec.js" $npm/ ||
		stop "This Go installation has no lib/wasm/wasm_exec.js. Install Go from https://go.dev/dl/."
	rm -rf $npm/weights
	mkdir -p $npm/weights
	cp weights/default/manifest.json weights/default/vocab.txt weights/default/*.safetensors $npm/weights/
	chmod -R u+w $npm
	done_ "$npm"

	step "site"
	rm -rf $site
	mkdir -p $site/pmp
	for f in site/*; do
		[ "$f" = site/worker ] || cp -r "$f" $site/
	done
	cp -r $npm/*.js $npm/*.wasm $npm/weights $site/pmp/
	keep_files
	large=$(find $site -type f -size +${asset_limit}c)
	[ -z "$large" ] || stop "Larger than 25 MiB, which Cloudflare does not take: $large" "Make smaller shards (weights.ShardSize)."
	done_ "$site"
}

# The hash of a file and its size, as JSON.
facts() { printf '{"file":"%s","bytes":%d,"sha256":"%s"}' "${1##*/}" "$(wc -c <"$1")" "$(sha256 "$1")"; }
sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }

# Builds the Worker, with what /api/version answers: what is in this build's site.
build_worker() {
	local about shards="" f
	step "worker"
	for f in $npm/weights/*; do
		[ "$f" = $npm/weights/manifest.json ] || shards="$shards${shards:+,}$(facts "$f")"
	done
	about="{\"package\":\"$(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' js/package.json)\",\"engine\":$(facts $npm/engine.wasm),\"manifest\":$(facts $npm/weights/manifest.json),\"weights\":[$shards]}"
	try "The Worker's frame could not be written; the messages above say why." \
		go run github.com/syumai/workers/cmd/workers-assets-gen -mode=go -o $worker
	try "The Worker does not compile; the messages above name the file and line." \
		env GOOS=js GOARCH=wasm go build -trimpath -ldflags="-s -w -X 'main.about=$about'" -o $worker/app.wasm ./site/worker
	done_ "$(megabytes "$(wc -c <$worker/app.wasm)")"
}

# Tells the service worker which files the site has, and their common hash.
keep_files() {
	local files version
	files=$(cd $site && find . -type f ! -path './pmp/weights/*' ! -name engine-bases.wasm ! -name _headers ! -name sw.js ! -name '*.md' | LC_ALL=C sort)
	version=$(cd $site && cat $files sw.js | cksum | cut -d' ' -f1)
	files=$(printf '"%s", ' ./ $files)
	sed -i.old -e "s|^const FILES = .*|const FILES = [${files%, }];|" -e "s|^const VERSION = .*|const VERSION = \"$version\";|" $site/sw.js
	rm $site/sw.js.old
}

# The bytes of all given files together, each compressed as a host would.
compressed() {
	local sum=0 n f
	for f in "$@"; do
		if have brotli; then
			n=$(brotli -q 11 -c "$f" | wc -c)
		elif have node; then
			n=$(node -e 'const z=require("zlib");const b=require("fs").readFileSync(process.argv[1]);console.log(z.brotliCompressSync(b,{params:{[z.constants.BROTLI_PARAM_SIZE_HINT]:b.length,[z.constants.BROTLI_PARAM_LGWIN]:24}}).length)' "$f")
		else
			n=$(gzip -9 -c "$f" | wc -c)
		fi
		sum=$((sum + n))
	done
	echo $sum
}

megabytes() { printf '%d.%03d MB' $(($1 / 1000000)) $(($1 % 1000000 / 1000)); }

sizes() {
	local how="brotli -q 11" n bases
	# The budget means brotli, which every host has; where it is missing the size is only told.
	have brotli || have node || { how="gzip -9; brotli, which the budget means, is smaller" && engine_budget=1200000 bases_budget=1300000; }
	step "size of the engine"
	bases=$(mktemp)
	compressed $npm/engine-bases.wasm $npm/*.js >"$bases" & # brotli takes one core
	n=$(compressed $npm/engine.wasm $npm/*.js)
	[ "$n" -le $engine_budget ] ||
		stop "The engine takes $(megabytes "$n") ($how), more than $(megabytes $engine_budget). See what it imports: GOOS=js GOARCH=wasm go list -deps ./wasm"
	done_ "$(megabytes "$n") of $(megabytes $engine_budget) (wasm + kernels + js, $how)"
	step "size for public checkpoints"
	wait $!
	n=$(cat "$bases")
	rm "$bases"
	[ "$n" -le $bases_budget ] ||
		stop "The engine for public checkpoints takes $(megabytes "$n") ($how), more than $(megabytes $bases_budget)."
	done_ "$(megabytes "$n") of $(megabytes $bases_budget) (its own wasm instead of the engine's)"
	step "size of the weights"
	# Hosts compress text on its way, but send shards as they are.
	n=$(($(cat $npm/weights/*.safetensors | wc -c) + $(compressed $npm/weights/*.txt $npm/weights/*.json)))
	[ "$n" -le $weights_budget ] ||
		stop "The weights take $(megabytes "$n"), more than $(megabytes $weights_budget)."
	done_ "$(megabytes "$n") of $(megabytes $weights_budget) (shards as they are, text $how)"
}

serve() {
	pack
	step "serve"
	exec go run ./cmd/pmp serve "$@"
}

# Sets dawn to the library that gives Node WebGPU, installed once into the user's cache.
dawn_version=0.6.2
dawn() {
	local cache=${XDG_CACHE_HOME:-$HOME/.cache}/pmp/webgpu-$dawn_version
	dawn=$cache/node_modules/webgpu/dist/$(node -p 'process.platform + "-" + (process.platform == "darwin" ? "universal" : process.arch)')/dawn.node
	[ -f "$dawn" ] || { mkdir -p "$cache" && npm install --no-save --prefix "$cache" webgpu@$dawn_version >/dev/null 2>&1 && [ -f "$dawn" ]; }
}

# Sets wrangler to Cloudflare's tool, installed once into the user's cache. It comes with workerd, which runs Workers.
wrangler_version=4.80.0
wrangler() {
	local cache=${XDG_CACHE_HOME:-$HOME/.cache}/pmp/wrangler-$wrangler_version
	wrangler=$cache/node_modules/.bin/wrangler
	export WRANGLER_SEND_METRICS=false
	[ -x "$wrangler" ] || { mkdir -p "$cache" && npm install --no-save --prefix "$cache" wrangler@$wrangler_version >/dev/null 2>&1 && [ -x "$wrangler" ]; }
}

# Whether Chromium can draw on a software card. Without the loader it ends the card when a page draws with it.
vulkan() { [ "$(uname)" != Linux ] || { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q 'libvulkan\.so\.1'; }

# Whether Node is there, and a program that npm installs; otherwise the step says that it is left out.
needs() { # the function that installs it, what it is
	if ! have node || ! have npm; then
		done_ "left out: Node is not installed (apt-get install nodejs npm)"
	elif ! "$1"; then
		done_ "left out: npm could not install $2"
	else
		return 0
	fi
	return 1
}

deploy() {
	pack
	build_worker
	step "deploy"
	{ have node && have npm; } || stop "Node is missing: install Node 20 or newer (apt-get install nodejs npm), or copy $site to any static host."
	wrangler || stop "npm could not install wrangler@$wrangler_version: see that the network is there, or copy $site to any static host."
	case " $* " in
	*" --dry-run "*) ;;
	*)
		[ -n "${CLOUDFLARE_API_TOKEN:-}" ] || "$wrangler" whoami 2>/dev/null | grep -q 'You are logged in' ||
			stop "There is no Cloudflare account: run $wrangler login, or set CLOUDFLARE_API_TOKEN."
		;;
	esac
	echo
	exec "$wrangler" deploy --config site/worker/wrangler.jsonc "$@"
}

run_tests() {
	local unformatted
	pack
	sizes
	step "gofmt"
	unformatted=$(gofmt -l .) || stop "gofmt found a file that is not Go."
	[ -z "$unformatted" ] || stop "Not formatted: $unformatted" "Run: gofmt -w ."
	done_
	step "go vet"
	try "Mend what go vet names." go vet ./...
	try "Mend what go vet names." env GOOS=js GOARCH=wasm go vet ./wasm ./site/worker ./kernel/...
	done_
	step "go test"
	# The browsers have steps of their own below.
	# shellcheck disable=SC2046
	tests "Run the failing package alone: go test -v PACKAGE" \
		go test -timeout 40m $(go list ./... | grep -v '/internal/browsertest$')
	step "batch pipelines"
	if ! go -C batch list -deps ./... >/dev/null 2>&1; then
		done_ "left out: Apache Beam's modules could not be fetched (cd batch && go list -deps ./... says why)"
	else
		try "Mend what go vet names in batch/." go -C batch vet ./...
		tests "Run the failing package alone: cd batch && go test -v PACKAGE" go -C batch test -timeout 40m ./...
	fi
	step "kernels in Node"
	# A Go program in Node has room for 8 kB of environment, so it gets only what go itself needs.
	if have node; then
		tests "Run it alone: GOOS=js GOARCH=wasm go test -exec \"\$(go env GOROOT)/lib/wasm/go_js_wasm_exec\" ./kernel/simd" \
			env -i HOME="$HOME" PATH="$PATH" GOCACHE="$(go env GOCACHE)" GOPATH="$(go env GOPATH)" GOFLAGS="$(go env GOFLAGS)" \
			GOOS=js GOARCH=wasm go test -timeout 40m -exec "$(go env GOROOT)/lib/wasm/go_js_wasm_exec" ./kernel/...
	else
		done_ "left out: Node is not installed (apt-get install nodejs)"
	fi
	step "shaders in every variant"
	if needs dawn "webgpu@$dawn_version, which compiles them without a graphics card"; then
		tests "Run it alone: kernel/webgpu/node.cjs says how, with PMP_VARIANT=null and -test.run TestVariants" \
			env -i HOME="$HOME" PATH="$PATH" GOCACHE="$(go env GOCACHE)" GOPATH="$(go env GOPATH)" GOFLAGS="$(go env GOFLAGS)" \
			GOOS=js GOARCH=wasm PMP_VARIANT=null PMP_DAWN="$dawn" NODE_OPTIONS="--require $PWD/kernel/webgpu/node.cjs" \
			go test -count=1 -run TestVariants -exec "$(go env GOROOT)/lib/wasm/go_js_wasm_exec" ./kernel/webgpu
	fi
	build_worker
	step "site and worker in workerd"
	if needs wrangler "wrangler@$wrangler_version"; then
		tests "Run it alone: PMP_WRANGLER=$wrangler go test -v -count=1 -run Workerd ./site/worker, after ./build.sh deploy --dry-run" \
			env PMP_WRANGLER="$wrangler" go test -count=1 -run Workerd ./site/worker
	fi
	if [ -n "${PMP_SKIP_BROWSERS:-}" ]; then
		step "browsers"
		done_ "left out, as PMP_SKIP_BROWSERS asks"
		echo "$passed passed, 0 failed"
		return
	fi
	for b in Chromium Firefox; do
		step "page and kernels in $b"
		tests "Run it alone: go test -v -run $b ./internal/browsertest (PMP_ONLY=word runs some of its tests; PMP_SKIP_BROWSERS=1 leaves browsers out)" \
			env PMP_NEED_BROWSERS=1 go test -count=1 -timeout 40m -run "$b" ./internal/browsertest
	done
	step "package packed, page offline"
	tests "Run it alone: go test -v -run 'Node|Types|Package|Docs|Complaints|Offline' ./internal/browsertest" \
		env PMP_NEED_BROWSERS=1 go test -count=1 -timeout 60m -run 'TestNode|TestTypes|TestPackage|TestDocs|TestComplaints|TestOffline' ./internal/browsertest
	step "WebGPU on a software card"
	if vulkan; then
		tests "Run it alone: go test -v -run WebGPU ./internal/browsertest (PMP_ONLY=word runs some of its tests)" \
			env PMP_NEED_BROWSERS=1 go test -count=1 -timeout 90m -run WebGPU ./internal/browsertest
	else
		done_ "left out: the Vulkan loader is not installed (apt-get install libvulkan1)"
	fi
	echo "$passed passed, 0 failed"
}

case ${1:-} in
"")
	pack
	sizes
	;;
pack) pack ;;
serve)
	shift
	serve "$@"
	;;
test) run_tests ;;
bench)
	shift
	exec bash bench/run.sh "$@"
	;;
deploy)
	shift
	deploy "$@"
	;;
-h | --help | help) usage ;;
*)
	usage >&2
	exit 1
	;;
esac
