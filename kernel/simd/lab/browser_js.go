package main

import (
	"errors"

	"github.com/pmp-seg/pmp/kernel/simd"
)

func open(variant string) (*simd.Device, error) {
	switch variant {
	case "plain":
		return simd.NewVariant(simd.Plain)
	case "relaxed":
		return simd.NewVariant(simd.Relaxed)
	}
	return simd.New()
}

func runIn(string, []string) error { return errors.New("already in a browser") }
