"""Makes encode.json: what transformers' CLIPTokenizer says of texts, with a small list of merges that is made up here.

    python bpe.py
"""
import collections
import json
import sys
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "weights" / "train"))
from clip import characters, tokenizer  # noqa: E402

CORPUS = """a photo of a small cat. there is the dog in the scene; this is a photo of the sofa, a couch and an armchair.
the potted plant stands beside the wooden table, and three people's bicycles lean against the wall. it's a rainy day, they're wet, we'll go.
über den straßen fährt die straßenbahn. les élèves mangent une crêpe. こんにちは 世界 2024 привет мир naïve café"""
MERGES = 150


def learn():
    byte = characters()
    words = collections.Counter()
    for word in CORPUS.lower().replace(".", " . ").replace(",", " , ").split():
        symbols = [byte[b] for b in word.encode()]
        symbols[-1] += "</w>"
        words[tuple(symbols)] += 1
    merges = []
    while len(merges) < MERGES:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        new = collections.Counter()
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i:i + 2] == best:
                    out.append("".join(best))
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            new[tuple(out)] += n
        words = new
    return merges


TEXTS = ["a photo of a cat.", "A Photo Of A CAT!", "", " ", "\t\n  dog \r\n\f\v cat\u00a0\u2003\u3000sofa\u0085x\u2028y\u200bz\ufeff",
         "it's THEY'RE we'll 'sofa 'D 'tis can't! !'s ''s", "2024 ½ ² Ⅷ ٣٤ 一二三 3.14e10", "straße STRASSE ẞ Straße", "İstanbul ISTANBUL ΣΊΣΥΦΟΣ ΟΔΟΣ",
         "crêpe naïve café Élève ÀÉÎÕÜ", "こんにちは世界 ПРИВЕТ мир שלום مرحبا हिन्दी", "👍🏽 👩‍👩‍👧 🇩🇪 ☃️ emoji", "\x00\x01\x1c\x1d\x1e\x1f\x7f\x80", "à\u0315b\u0315",
         "<|startoftext|>cat<|endoftext|> dog<|endoftext|>", "<|ENDOFTEXT|> <|StartOfText|>", "!!<|endoftext|", "<|endoftext|>", "</w> cat</w> #version: 0.2", "Ġcat ĠĠ Ā",
         "x" * 500, "cat " * 200, "....,,,;;--__==", "a" + "\u0315" * 70, "$100 50% #tag @home C++ a_b-c/d\\e", "ｆｕｌｌ　ｗｉｄｔｈ ﬁ ǅ ᾼ", "𝒜𝓁𝓁 𐐀𐐨 \U0010ffff", "&amp; &lt;b&gt; &#39;"]


if __name__ == "__main__":
    assert all(unicodedata.is_normalized("NFC", t) for t in TEXTS)   # ours does not compose characters
    merges = learn()
    clip = tokenizer(merges)
    (Path(__file__).parent / "encode.json").write_text(json.dumps({
        "merges": "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", "tokens": len(clip),
        "cases": [{"text": t, "ids": clip(t, truncation=True, max_length=77)["input_ids"]} for t in TEXTS]}, ensure_ascii=True, indent=0) + "\n")
