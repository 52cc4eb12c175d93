// The Cloudflare Worker behind the demo. It answers /api/* and nothing else: pages, engine and
// weights are static assets, which Cloudflare sends without starting it.
//
// No other package may import syumai/workers, which brings net/http along.
package main

import "github.com/syumai/workers"

// about is what /api/version answers, a JSON object of one line that build.sh links in.
var about = "{}"

func main() { workers.Serve(handler{about}) }
