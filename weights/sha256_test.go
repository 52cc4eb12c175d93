package weights

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

func TestSHA256(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	// Every length round the ends of one and two blocks, and a long one.
	for n := range 200 {
		if sha256Of(data[:n]) != sha256.Sum256(data[:n]) {
			t.Errorf("%d bytes: another hash than crypto/sha256", n)
		}
	}
	if sha256Of(data) != sha256.Sum256(data) {
		t.Error("the hash of a long text differs from crypto/sha256")
	}
}

func BenchmarkSHA256(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256Of(data)
	}
}
