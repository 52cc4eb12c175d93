"""Writes encode.json: what the reference tokenizer makes of odd texts, and of every code point.

    python fixture.py path/to/tokenizer.json > encode.json

Needs: pip install tokenizers (Hugging Face; BERT uncased with the vocabulary in weights/default/vocab.txt).
"""
import base64
import hashlib
import json
import random
import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
tokenizer.no_padding()
random.seed(7)

texts = """
dog|a photo of a dog|sofa, couch|person, man, woman|The quick brown FOX jumps over the lazy dog.|traffic light|tv monitor|potted plant
hot-dog|dining table|ice cream|the man's hat|"quoted"|it's 5 o'clock|U.S.A.|e-mail@example.com|http://example.com/a?b=c&d=e#f|C++|C#|.NET|100%|$5.00|£5|5€
3.14159|1,000,000|0|00012|2024-11-22|12:34:56|½|²|10⁻³|x²|№5|Ⅷ|①|😀5
café|cafe\u0301|CAFÉ|naïve|Ångström|Å|A\u030a|Zoë|façade|jalapeño|smörgåsbord|Škoda|Łódź|Đorđe|ø|Ø|æ|Æ|œ|ß|ẞ|STRASSE straße|ﬁsh|ﬀ|ĳ|ŉ|ſ|ǅ|ǆ|þ|ð
İstanbul|ıstanbul|I|i|İ|ı|DİYARBAKIR|Iğdır|Ğ|ş
Ελληνικά|ΣΊΣΥΦΟΣ|σίσυφος|ς|ά|ᾳ|ᾼ|ἄνθρωπος|Ω|Ω (ohm)|µ (micro)|μ
Москва|ЁЛКА|ёлка|й|Й|київ|Їжак|Ӂ|ѝ
中文|中文 text 混合|日本語のテキスト|カタカナ|ガギグゲゴ|ｶﾀｶﾅ|ｶﾞ|ひらがな|ぱぴぷ|한국어|한|강아지|개와 고양이|가각|ᄀ|힣|漢字かな交じり|豈|樂|𠀀|𪜀|㐀|丽
ｆｕｌｌ　ｗｉｄｔｈ|ＡＢＣ|１２３|！？|～|。、|「括弧」|〈〉|《書》|・|…|—|–|‐|‑|‒|―
العربية|مَرْحَبًا|שלום|שָׁלוֹם|\u200fשלום\u200f|\u202bdog\u202c|हिन्दी|क्षत्रिय|ไทย|ภาษาไทย|தமிழ்|ತೊ|বাংলা|কো|ქართული|Ქ|հայերեն|ՀԱՅ|አማርኛ|ខ្មែរ|བོད|Ꭰ|ꭰ
😀|👨‍👩‍👧‍👦|👩🏽‍🚀|🏳️‍🌈|❤️|❤|☀️ sun|🇩🇪|1️⃣|#️⃣|🐕 dog|cat🐈cat|©|®|™|→|←→|∞|≠|≤|≮|a≠b|√2|∑|∫
a\u0000b|\u0000|\u0001\u0002|a\u0007b|a\u007fb|a\u0085b|a\u00a0b|a\u00adb|a\u1680b|a\u180eb|a\u2000b|a\u2003b|a\u2009b|a\u200bb|a\u200cb|a\u200db|a\u2028b|a\u2029b|a\u202fb|a\u205fb|a\u2060b|a\u3000b|a\ufeffb|\ufeffdog|a\ufffdb|\ufffd|a\ue000b|a\U000f0000b|a\U0010ffffb|a\uffffb|a\u0378b|a\ud7a4b
a\u0301\u0302\u0303b|\u0301|\u0301dog|e\u0323\u0302|\u0345|x\u20dd|a\u0488|\u1ab0|\U0001d165|\U0001d15e|\U0001e900|\U00010400|ⓐ|Ⓐ|🅰|𝐝𝐨𝐠|𝒟|ᵈᵒᵍ|ꜱ|Ⱥ|ⱥ|Ȿ|K|ﷺ
[CLS]|[SEP]|[MASK]|[PAD]|[UNK]|a[MASK]b|[mask]|[ MASK ]|[CLS|[[CLS]]|dog [SEP] cat|[UNK][UNK]|[unused1]|##dog|dog##s|##|#|[|]|[MASK
...|!!!|?!?!|---|___|a_b|a-b-c|\\|/|a/b|a\\b|`|~|^|<>|<b>bold</b>|{}|()|(dog)|;;|::|''|""|\u201cdog\u201d|\u2018dog\u2019|¿qué?|¡hola!|«mot»|¶|§|·|a·b|;|·|〈a〉|†|‰|‱|※|‼|⁇|⸮|﹏|＿|￥|՚|؟|،|।|๛|༎|᛫|၊|፡
""".strip("\n").replace("\n", "|").split("|")
texts += ["", " ", "   ", "\t\n\r", "\ta\tb\n", "a\vb", "a\fb", "a\x1cb", "|", "a|b", "a\r\nb"]
texts += ["a" * n for n in (99, 100, 101, 1000)] + ["dog" * 33 + x for x in ("", "a", "ab")]
texts += ["é" * 100, "é" * 101, "e\u0301" * 100, "한" * 33, "한" * 34, "中" * 70, "." * 70, "dog " * 61, "dog " * 62, "dog " * 63, "unbelievably " * 20]
texts += ["x" * 100 + "." + "x" * 101 + " dog", "a" * 50 + "\u0000" * 60 + "b" * 50, "a" * 101 + "b\u200b"]
texts += [" ".join(random.choice("the cat sofa Über naïve 中文 dog's 3.5 ... supercalifragilistic ÉCOLE 😀 İ".split()) for _ in range(1800)),
          "lorem ipsum dolor sit amet " * 400, "z" * 10240, "中文" * 2000]
inputs = [t.encode("utf-8", "surrogatepass") for t in texts]
inputs += [b"\xff", b"dog\xffcat", b"caf\xc3", b"\xc3(", b"\xe4\xb8", b"a\xe4\xb8b", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xfe\xfe", b"a\x80\x80b"]
# Characters drawn from everywhere, and from where something happens to them.
pools = [range(0x20, 0x250), range(0x300, 0x600), range(0x1D00, 0x2100), range(0x20, 0x10000), range(0xF900, 0x10000), range(0x10000, 0x20000)]
for _ in range(60):
    pool = random.choice(pools)
    text = "".join(random.choice([chr(random.choice(pool)), random.choice("abcdefgh  ")]) for _ in range(random.randrange(1, 40)))
    inputs.append("".join(c for c in text if not 0xD800 <= ord(c) < 0xE000).encode())


def encode(data, most):
    tokenizer.enable_truncation(most)
    return tokenizer.encode(data.decode("utf-8", "replace")).ids


cases = [{"text": base64.b64encode(data).decode(), "max": most, "ids": encode(data, most)}
         for data in inputs for most in ((64,) if len(data) < 180 else (64, 5, 300))]
cases += [{"text": base64.b64encode(b"hello world again").decode(), "max": most, "ids": encode(b"hello world again", most)} for most in (2, 3, 4, 6)]

# Every code point between two letters, one hash for each 4096 of them. Planes 4 to 13 are empty, and 15 and 16 private:
# of those the first and the last blocks will do.
tokenizer.enable_truncation(64)
sweep = {}
for block in [*range(0x41), 0xDF, 0xE0, 0xE1, 0xEF, 0xF0, 0x10F]:
    points = [c for c in range(block * 4096, block * 4096 + 4096) if not 0xD800 <= c < 0xE000]
    hashed = hashlib.sha256()
    for e in tokenizer.encode_batch(["a%cb" % c for c in points]):
        hashed.update((" ".join(map(str, e.ids)) + "\n").encode())
    sweep[block] = hashed.hexdigest()[:16]

sys.stdout.write('{"cases": [\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + '\n],\n"sweep": ' + json.dumps(sweep) + "}\n")
