"""Our tokenizer against pairs that the Java program gave, against the program itself, and against its own slow form."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioner.errors import MissingDependency
from captioner.java import find_jar
from captioner.text import ptb_lite as module
from captioner.text.ptb_java import JAR, ptb_java
from captioner.text.ptb_lite import RULES, plain_signs, ptb_lite, scan
from eval.tokens import compare, kept_aside
from tests.conftest import CHECKOUT

PAIRS = [
    ("A man's dog isn't here, it's theirs.", "a man 's dog is n't here it 's theirs", "clitics"),
    ("Two dogs' toys ; a t-shirt .", "two dogs toys a t-shirt", "spaced punctuation"),
    ('"Quoted" words, ‘single’ and “double.”', "quoted words single and double", "quotation marks"),
    ("red,white;blue:green", "red white blue green", "no blanks"),
    ("A man in jeans &amp; a hat", "a man in jeans & a hat", "HTML in Flickr30k"),
    ("A Texas A&amp;M football player", "a texas a&m football player", "HTML in a name"),
    ("cars. &nbsp;", "cars", "a blank of HTML"),
    ("The letter P. The dog", "the letter p the dog", "a sentence that ends in a letter"),
    ("The letter P.", "the letter p", "a caption that ends in a letter"),
    ('the letter "P."', "the letter p.", "a letter in quotation marks"),
    ("A 2 year old (a girl) [sic]", "a 2 year old -lrb- a girl -rrb- -lsb- sic -rsb-", "brackets stay"),
    ("what?! no!! yes!", "what ?! no !! yes", "runs of signs stay"),
    ("😀 smile 👍🏽 emoji🎉", "smile emoji", "emoji are unknown"),
    ("½ mile, 2½ miles", "1/2 mile 2 1/2 miles", "fractions"),
    ("£5, €5, 5¢", "# 5 $ 5 5 cents", "currencies"),
    ("café naïve 日本語", "café naïve 日本語", "other letters"),
    ("Celebrating St. Patrick's Day at 2:10 pm", "celebrating st. patrick 's day at 2:10 pm", "abbreviation"),
    ("d'or l'eau c'est O'Hare's n'sync", "d'or l'eau c'est o'hare 's n'sync", "apostrophes in names"),
    ("tailgate party of 4 on S.W. 8th st.", "tailgate party of 4 on s.w. 8th st.", "abbreviations at the end"),
    ("a half-, semi- and -like", "a half semi and like", "hanging hyphens"),
    ("...and then....", "and then", "dots"),
    ("a -- b---c — d–e", "a b c d e", "dashes"),
    ("  \t a \n dog \u00a0 ", "a dog", "white space"),
    ("", "", "nothing"),
    (" . ", "", "punctuation alone"),
]
"""A text, what the Java program gives for it (Stanford CoreNLP 3.4.1, options of pycocoevalcap 1.2), what it shows."""
WORDS = "A man The dog's isn't T-shirt, red/white St. U.S. 10-year-old (left) \"hello\" & 5 $3.50 10:30 cannot".split()


@pytest.fixture(scope="module")
def java() -> None:
    """Skips where the Java program cannot run."""
    try:
        find_jar("ptb-java", JAR)
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("text", "tokens"), [rule[1:] for rule in RULES])
def test_each_rule_s_pair(text: str, tokens: str) -> None:
    """Would catch a rule that a rule before it takes the text from."""
    assert ptb_lite([text]) == [tokens.split(" ")]


@pytest.mark.parametrize("place", range(len(RULES)), ids=lambda place: RULES[place][0][:20])
def test_each_rule_is_needed(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a rule without effect, or a pair that does not show it."""
    others = [f"(?:{pattern})" for n, (pattern, _, _) in enumerate(RULES) if n != place]
    monkeypatch.setattr(module, "_TOKEN", re.compile("|".join(others), re.IGNORECASE))
    _, text, tokens = RULES[place]
    assert scan(plain_signs(text)) != tokens.split(" ")


@pytest.mark.parametrize(("text", "tokens"), [pair[:2] for pair in PAIRS], ids=[pair[2] for pair in PAIRS])
def test_observed_pairs(text: str, tokens: str) -> None:
    assert ptb_lite([text]) == [tokens.split()]


@pytest.mark.java
def test_pairs_are_the_java_program_s(java: None) -> None:
    """Would catch a table that was written by hand. A text in small letters after each keeps the next from mattering
    but for the one text that ends in a letter, after which a caption begins with "A"."""
    pairs = [*(rule[1:] for rule in RULES), *(pair[:2] for pair in PAIRS)]
    texts = [text for pair in pairs for text in (pair[0], "A dog runs" if pair[0].endswith(" P.") else "dogs run")]
    found = dict(zip(texts, ptb_java(texts), strict=True))
    assert {text: found[text] for text, _ in pairs} == {
        text: re.split("[ \n]+", ts) if ts else [] for text, ts in pairs
    }


@pytest.mark.java
@settings(max_examples=5)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1).map(" ".join), min_size=100, max_size=300))
def test_usual_words_in_any_order(java: None, captions: list[str]) -> None:
    """Would catch a rule that works in its own pair alone."""
    assert [pair for pair in compare([f"{caption} outdoors." for caption in captions]) if pair[1] != pair[2]] == []


@pytest.mark.java
@pytest.mark.shared_data
def test_real_captions(java: None, shared_data) -> None:
    """At most 20 of Flickr8k's, Flickr30k's and COCO val2017's 223,684 captions, and 5 of the fifth that nobody looked
    at; ``python -m eval.tokens`` prints the numbers."""
    from captioner.data.results import read_captions

    names = ("flickr8k/Flickr8k.token.txt", "flickr30k/captions.token", "coco/captions_val2017.json")
    pairs = [
        pair
        for name in names
        for pair in compare([text for texts in read_captions(shared_data / name).values() for text in texts])
    ]
    differing = [text for text, theirs, ours in pairs if theirs != ours]
    assert len(pairs) == 223684
    assert len(differing) <= 20 and sum(map(kept_aside, differing)) <= 5


SIGNS = st.text("ab .'\"-/0&;,AP\t\u2019\u00bd\u00a0\U0001f600n'tThe")


@given(st.one_of(SIGNS, st.text(), st.lists(st.sampled_from([*WORDS, "P.", "22", "3/4", "no."])).map(" ".join)))
@example("P. The")
@example("see P.\tThe dog")
@example("22 \t 3/4")
@example("No.\u00a05 a")
def test_the_fast_form_is_the_slow_one(text: str) -> None:
    """Would catch a rule that looks beyond a blank, which the tokens of single words cannot know."""
    [tokens] = ptb_lite([text])
    assert tokens == scan(plain_signs(text))
    assert all(token and token.split(" ") == [token] for token in tokens)


def test_the_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a process that captions forever and grows."""
    monkeypatch.setattr(module, "MEMORY", 10)
    monkeypatch.setattr(module, "_known", module._Known())
    texts = [f"word{number}" for number in range(25)]
    assert ptb_lite(texts) == [[text] for text in texts]
    assert len(module._known) <= 10


PIECES = (
    "a.",
    "a-",
    "a'",
    "a&",
    "1,",
    "1:",
    ".",
    "-",
    "'",
    "a",
    "A",
    "1",
    "@",
    "a@",
    "<a",
    "n't",
    "http://",
    "no.",
    "( ",
    "P. ",
)


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    """Would catch a pattern that looks at the same signs again from every place: minutes, not a second."""
    began = time.perf_counter()
    ptb_lite([piece * (200_000 // len(piece))])
    assert time.perf_counter() - began < 20


def test_nothing_of_the_lexer_s_grammar() -> None:
    """The rules are our own. A lexer generator's terms or ``{MACRO}`` references would be signs of another source."""
    terms = re.compile(r"\bjflex\b|\bPTBLexer\b|\byy(?:text|lex|begin)\b|\bzz[A-Z]\w+", re.IGNORECASE)
    for path in sorted((CHECKOUT / "captioner").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not terms.search(text), path
        assert path.parent.name != "text" or not re.search(r"\{[A-Z][A-Z0-9_]+\}", text), path
