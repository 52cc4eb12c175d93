"""Reads the text encoder out of a shipped model, in place of distilling it again.

    python shipped_text.py --model ../default --out text.pt

The result is what distil_text.py writes, except that its weights are those of the product: rounded to int8 and float16.
"""
import argparse

import torch

from shipped import read
from text import TextEncoder


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="../default", help="folder with the manifest and its shards")
    p.add_argument("--out", required=True)
    args = p.parse_args()
    encoder = TextEncoder()
    encoder.load_state_dict({k.removeprefix("text."): v for k, v in read(args.model)[1].items() if k.startswith("text.")})
    torch.save(encoder.state_dict(), args.out)


if __name__ == "__main__":
    main()
