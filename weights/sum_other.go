//go:build !js

package weights

import "crypto/sha256"

// sum is the standard library's SHA-256, which uses the processor's own
// instructions; see sha256Of for the browser.
func sum(data []byte) [32]byte { return sha256.Sum256(data) }
