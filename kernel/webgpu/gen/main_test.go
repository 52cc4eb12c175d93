package main

import (
	"os"
	"testing"
)

// What a page downloads is what lies in wgsl.
func TestJoined(t *testing.T) {
	want, err := join("../wgsl")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../shaders.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("shaders.txt is not made of wgsl/*.wgsl; run go generate ./kernel/webgpu")
	}
}
