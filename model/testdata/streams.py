"""What the makers of fixtures share: numbers that come from names alone, bit for bit as the Go tests make them (newStream),
and what a fixture keeps of a tensor: some numbers and two sums over all of them."""
import math

import numpy as np
import torch

SAMPLES = 400          # numbers kept of a tensor
STEP = 7919            # a prime, so that samples come from all columns and rows
SALT = "4/"            # chosen such that no mask logit that steers attention is nearly zero (see make_cases)


def seed(name):
    """FNV-1a of a name."""
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = (h ^ c) * 0x100000001B3 % 2 ** 64
    return h


def bits(name, n):
    """The first n numbers of the splitmix64 stream of a name."""
    with np.errstate(over="ignore"):
        x = np.uint64(seed(SALT + name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def uniform(name, shape, middle, width):
    """A tensor of a name's numbers, float32s in float64."""
    u = (bits(name, math.prod(shape)) >> np.uint64(11)).astype(np.float64) * 2.0 ** -52 - 1
    return torch.from_numpy((middle + width * u).astype(np.float32).astype(np.float64).reshape(shape))


def picture(name, width, height):
    """RGB of a triangle wave with noise, whole numbers only."""
    y, x, c = np.mgrid[:height, :width, :3]
    wave = np.abs((7 * x + 3 * y + 40 * c) % 256 - 128)
    noise = (bits(name, width * height * 3) >> np.uint64(58)).astype(np.int64).reshape(height, width, 3)
    return (wave + noise).astype(np.uint8)


fixture = {}


def sampled(name, x):
    """Keeps samples of a tensor, and its length with a random sign for each number."""
    x = np.ascontiguousarray(x.numpy() if isinstance(x, torch.Tensor) else x, dtype=np.float64).ravel()
    at = np.arange(min(len(x), SAMPLES)) * STEP % len(x) if len(x) > SAMPLES else np.arange(len(x))
    signs = 1 - 2 * (bits("signs", len(x)) >> np.uint64(63)).astype(np.float64)
    assert name not in fixture, name
    fixture[name] = x[at].astype(np.float32)
    fixture[name + "#"] = np.array([len(x), math.sqrt((x * x).sum()), (x * signs).sum()], dtype=np.float32)
    return x
