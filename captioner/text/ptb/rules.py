r"""The rules of Stanford's PTBTokenizer 3.4.1 as coco-caption runs it, each with its reason.

At every point of a text the rule that matches the most characters applies, its context included, and of equally long
matches the rule that stands first (see ``automaton``). The context is then given back, so the next token starts there;
``back`` characters of the match itself are given back as well. ``form`` makes the token of the match, or None.

The rules describe what the tool does, in parts and words of this project. What it does was learned by watching it, from
the tables in its program and from the grammars published with neighboring versions; that they describe it exactly is
shown by walking both automata side by side, each state of the one with the state of the other (tests/text/test_ptb.py).
Two of the tool's rules are left out because they only repeat a full stop, which coco-caption throws away: after an
abbreviation that ends a sentence, and after an acronym before a typical first word. Their one visible effect is the
rule of single letters below.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from captioner.text.ptb.characters import DIGITS, LETTERS, MARKS, SYMBOLS

# How a match becomes a token.

SOFT_HYPHEN = "\u00ad"


def keep(text: str) -> str:
    return text


def drop(_: str) -> str | None:
    return None


def becomes(token: str) -> Callable[[str], str]:
    return lambda _: token


def without_soft_hyphens(text: str) -> str:
    return text.replace(SOFT_HYPHEN, "") or "-"  # one that stands alone is taken for a hyphen


def ampersand(text: str) -> str:
    return re.sub("&amp;", "&", text, flags=re.IGNORECASE | re.ASCII)


def unbroken(text: str) -> str:
    """No token holds a space, so it becomes one that does not break."""
    return text.replace(" ", "\u00a0")


def brackets(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


def telephone(text: str) -> str:
    return brackets(text.replace(" ", "\u00a0"))


_QUOTES = {
    "\u0091\u2018\u201b\u2039": "`",
    "\u0092\u2019\u203a": "'",
    "\u0093\u201c\u00ab": "``",
    "\u0094\u201d\u00bb": "''",
}
_LATEX = str.maketrans({quote: latex for quotes, latex in _QUOTES.items() for quote in quotes})


def quotes(text: str, straight: str = "'") -> str:
    """Quotation marks as LaTeX writes them. Low and reversed ones stay, and entities not in small letters."""
    single = text.replace("&apos;", "'").replace("'", straight)
    return single.replace("&quot;", '"').replace('"', 2 * straight).translate(_LATEX)


def opening_quotes(text: str) -> str:
    return quotes(text, "`")


_FRACTIONS = str.maketrans({"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"})


def fraction(text: str) -> str:
    return text.translate(_FRACTIONS)


_CURRENCIES = str.maketrans({"¢": "cents", "£": "#"} | dict.fromkeys("\u0080¤₠€", "$"))


def currency(text: str) -> str:
    """The treebank knew dollars and, written ``#``, pounds. The yen and others stay."""
    return text.translate(_CURRENCIES)


def dashes(text: str) -> str:
    return "--" if len(text) in (3, 4) else text


# How patterns are made of characters and words.


def characters(code_points: str) -> str:
    """``41-5a aa`` as a pattern for one of these characters."""
    return "[" + "".join("-".join("\\" + chr(int(c, 16)) for c in r.split("-")) for r in code_points.split()) + "]"


def none_of(signs: str) -> str:
    """A pattern for one character that is none of ``signs``."""
    return "[^" + "".join("\\" + sign for sign in signs) + "]"


def words(listed: str) -> str:
    """A pattern for one of these words, in small or capital letters."""
    return "|".join(word.replace(".", "\\.") for word in listed.split())


def capitalised(listed: str) -> str:
    """The same with a capital first letter, where the small word is a common one: ``Miss.`` but not ``miss.``"""
    return "|".join(f"[{word[0]}]{word[1:]}" for word in words(listed).split("|"))


# The parts that rules are made of, by what they stand for. Letters in brackets count in that case only: in some places
# the tool tells the cases apart, or knows no long s, where one would not expect it.

CHARACTERS = {
    "any": characters("0-ffff"),
    "letter": characters(LETTERS),
    "digit": characters(DIGITS),
    "mark": characters(MARKS),
    "alphanumeric": "{letter}|{digit}",
    # English ones alone.
    "latin": "[A-Za-z]",
    "figure": "[0-9]",
    "plain": "{latin}|{figure}",
    "capitals": "[A-Z]+",
    # What stands between words: the blank, the tab, those of typesetters and of Chinese.
    "space": characters("9 20 a0 2000-200a 3000"),
    "inner_space": characters("20 a0"),  # a token may hold it
    "newline": "\r\n|" + characters("a b c d 85 2028 2029"),
    "blank": "{space}|{newline}",
    # What joins or cuts words.
    "hyphen": "[-‐‑֊_]",
    "soft_hyphen": SOFT_HYPHEN,
    "apostrophe": "['’\u0092]|&apos;",
    "any_apostrophe": "{apostrophe}|[`‘‛\u0091]",  # also opening quotes that people type for it
    "and_sign": "&|&amp;",
    "separator": "[,:;、]",
    "foreign_stop": characters("37e 589 61f 6d4 700-702 7fa 3002"),  # Greek, Armenian, Arabic, Syriac, N'Ko, Chinese
    # What encloses them.
    "less": "<|&lt;",
    "greater": ">|&gt;",
    "double_quote": '"|&quot;',
    "single_quotes": "[`‘’‚‛‹›\u0091\u0092]",
    "double_quotes": "[“”„‟«»\u0093\u0094]",
}

WORDS = {
    # A word: letters of all kinds, digits after the first, points inside.
    "accented": "&[AEIOUaeiou](acute|grave|uml);",
    "word_letter": "{letter}|{mark}|{accented}|{soft_hyphen}",
    "word_character": "{word_letter}|{digit}",
    "word_part": "{word_letter}{word_character}*",
    "word": "{word_part}([!.?]{word_part})*",
    # Shortened verbs after it, and the word before n't, whose own n the tool leaves to it.
    "clitic": "{apostrophe}([dmsDMS]|ll|re|ve)",
    "not": "n{any_apostrophe}t",
    "not_n": "[A-MO-Za-mo-z]",
    "negated": "({latin}|{soft_hyphen})*{not_n}{soft_hyphen}*",
    # Apostrophes that belong to a word, by where letters are left out.
    "cut_before": "{apostrophe}(cause|em|n|til|till|{decade})",
    "decade": "[2-9]0s",
    "cut_after": "(Dunkin|ol|somethin|[djlDJL]){apostrophe}",
    "cut_inside": words("c'mon cont'd cont'd. e'er ev'ry li'l nat'l nor'easter s'mores"),  # the typewriter's alone
    "cut_around": "{apostrophe}n{apostrophe}",
    "after_initial": "[A-HJ-XZn]{any_apostrophe}{letter}{letter}+",  # O'Hara, but not I'll and y'all
    "after_vowel": "{letter}+[AEIOUYaeiouy]{any_apostrophe}[A-Zaeiou]{letter}*|O{any_apostrophe}o",  # Hawai'i
    # Compounds: a general kind for all alphabets, a kind with points and commas for English.
    "elision": "[dloDLO]{any_apostrophe}",
    "compound_part": "{alphanumeric}+|{elision}{alphanumeric}{alphanumeric}+",
    "compound": "{compound_part}({hyphen}{compound_part})*",
    "first_part": "{plain}({plain}|{soft_hyphen}|[,.])*",
    "further_part": "({plain}|{soft_hyphen})+|{pointed}\\.",
    "hyphenated": "{first_part}(-{further_part})+",
    "initials": "{capitals}(({and_sign}|\\+){capitals})+",
    "slashed_part": "{plain}+(-{latin}+){0,2}",
    "bracket_name": "-(L|R)(C|R|S)B-",  # left or right; curly, round, square
    "odd_compound": "anti-|pro-|C\\.D\\.s|S{and_sign}(Ls|P-500)|c{apostrophe}est|Cap{apostrophe}n",
    # Mark-up.
    "tag_name": "{latin}({latin}|{figure}|[-.:_])*",
    "tag_value": "\"[^\"]*\"|'[^']*'",
    "attribute": "{tag_name}( *= *{tag_value})?",
    "opening_tag": "{tag_name}( +{attribute})* */?",
    "closing_tag": "/{tag_name}",
    "declaration": "[!?]({latin}|-)[^>\n\r]*",
    "tag": "<({opening_tag}|{closing_tag}|{declaration}) *>",
    "entity_of_dash": "&(MD|mdash|ndash);",
    "entity_of_news": "&(cdq|odq|HT|LR|Q(C|L|R)|TL|UR|#{figure}+);",
}

NUMBERS = {
    "sign": "[-+]",
    "joint": "[,.:\u00ad\u066b\u066c]",  # also the soft hyphen and two of Arabic
    "number": "{joint}?{digit}+({joint}{digit}+)*",
    "day_or_month": "{digit}{1,2}",
    "year": "{digit}{2,4}",
    "date": "({day_or_month}[-/]){2}{year}",
    "raised": characters("b2 b3 b9 2070 2074-2079"),
    "lowered": characters("2080-2089"),
    "small_sign": "[⁺⁻₊₋]",
    # Fractions. A stroke may be escaped with a backslash, as files of the treebank do.
    "gap": "{inner_space}|-",
    "stroke": r"\\?/",
    "short_number": "{digit}{1,4}",
    "fraction": "({short_number}{gap})?{short_number}({stroke}|⁄){short_number}",
    # Telephones: where (country, area), then the exchange and the line there.
    "plus": "\\+{1,2}",
    "code": "{figure}{2,4}",
    "area_in_brackets": "\\({figure}{2,3}\\){inner_space}?",
    "codes": "{plus}?({code}{gap}){1,2}",
    "exchange": "{figure}{3,4}",
    "line": "{figure}{3,5}",
    "spaced_telephone": "({area_in_brackets}|{codes}){exchange}{gap}?{line}",
    "dotted_telephone": "({plus}?{code}\\.)?{code}\\.{exchange}\\.{line}",
}

BLANKS = " \t\n\f\r"
AROUND = '"<>|()'  # what people put around an address
BRACES = "{}"
POINTS = "!.?,"  # punctuation that follows an address, or cuts its names
COMMA_TO_UNDERSCORE = "".join(map(chr, range(ord(","), ord("_") + 1)))
NO_BREAK_SPACE = "\u00a0"

ADDRESSES = {
    # An address goes on to a blank, but ends before punctuation.
    "address_end": none_of(BLANKS + AROUND + BRACES + POINTS + "-"),
    "full_address": "(http|https)://" + none_of(BLANKS + AROUND + BRACES) + "+{address_end}",
    "path": "/" + none_of(BLANKS + AROUND) + "+{address_end}",
    # After www the name of a machine may end in any land, else only in one of the old four. Those others hold no
    # capitals, digits or hyphens: the tool leaves out all characters from the comma to the underscore.
    "www_label": none_of(BLANKS + AROUND + BRACES + POINTS) + "+\\.",
    "www": "www\\.{www_label}+{latin}{2,4}",
    "label": none_of(BLANKS + AROUND + BRACES + POINTS + "'`$" + COMMA_TO_UNDERSCORE) + "+\\.",
    "machine": "{label}+(com|edu|net|org)",
    # Electronic mail.
    "mailbox": "{plain}" + none_of(BLANKS + NO_BREAK_SPACE + AROUND + BRACES) + "*",
    "mail_label": none_of(BLANKS + NO_BREAK_SPACE + AROUND + BRACES + ".") + "+",
    "mail": "{less}?{mailbox}@{mail_label}(\\.{mail_label})*{greater}?",
    # Names and topics of short messages.
    "user": "@({latin}|_)({latin}|{figure}|_)*",
    "topic": "#{word_letter}+",
    # Names of files.
    "program": words("bat c cgi class cpp dll exe h java php pl py sql x"),
    "document": words("doc docx htm html pdf ppt ps txt xml"),
    "picture_or_sound": words("bmp gif jpeg jpg mov mp3 png wav"),
    "archive": words("gz jar tar zip"),
    "file": "({word_character}+\\.)+({program}|{document}|{picture_or_sound}|{archive})",
}

ABBREVIATIONS = {
    # Of the calendar.
    "month": words("Apr Aug Dec Feb Jan Jul Jun Mar Nov Oct Sep Sept"),
    "weekday": words("Fri Mon Thu Thurs Tue Tues Wed"),
    # Of places.
    "state": words(
        "Ala Ariz Calif Colo Conn Ct Dak Fla Ga Ind Kan Kans Ky Md Mich Minn Mo Mont Neb Nev Okla Penn Tenn Va Vt Wis "
        "Wisc Wyo"
    ),
    "state_that_is_a_word": capitalised("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"),
    "street": words("Bldg Blvd Rd"),
    "named_place": words("Ave Ft Mt"),
    # Of companies.
    "company": words("Assn Bancorp Bhd Co Corp Cos Inc Intl Ltd Plc Rt Sys Univ"),
    "proprietary": "(P|Pp)t[ey]s?",
    "limited": words("co pte pty"),
    "branch": words("Cie Dept Elec Invt Natl Ph Treas") + "|M[ft]g",
    # Of people, before and after their names.
    "courtesy": words("Messrs Mlle Mme Mr Mrs Ms") + "|" + capitalised("Miss"),
    "rank": words("Adj Adm Brig Capt Cmdr Col Comdr Cpl Ens Gen Lieut Lt Maj Pfc Pvt Sfc Sgt Spc"),
    "office": words("Adv Asst Assoc Atty Attys Det Gov Govs Hon Insp Pres Rep Reps Sen Sens Supt Supts"),
    "learned_or_holy": words("Dr Drs Msgr Prof Profs Rev St Ste"),
    "first_name": words("Alex Jos Wm"),
    "after_name": words("Bros Ed.D Esq Jr Ph.D Sr"),
    # Of books and cards.
    "closing": words("al etc seq"),
    "measure": words("est ext sq tel"),
    "reference": words("a.k.a cf vs"),
    "numbered": words("art bldg ca fig figs no nos op pp prop"),
    # Letters with points, and two lands of which one is such.
    "pointed": "{latin}(\\.{latin})+|{two_lands}",
    "acronym": "{latin}|{pointed}",
    "two_lands": "(Canada|EU|Japan|Korean|non|Sino)-U\\.S|U\\.S\\.-U\\.(K|S\\.S\\.R)",
    # By what may follow: the end of a sentence, or the name that they belong to.
    "ending": (
        "{month}|{weekday}|{state}|{state_that_is_a_word}|{street}|{company}|{proprietary}|{after_name}|{closing}"
        "|{measure}"
    ),
    "leading": (
        "{courtesy}|{rank}|{office}|{learned_or_holy}|{first_name}|{named_place}|{branch}|{reference}|{acronym}"
    ),
    # Words that begin sentences.
    "first_pronoun": capitalised("He It She They We What You"),
    "first_determiner": capitalised("A An Her Last Many More One Other Our Some Such That The Their These This"),
    "first_preposition": capitalised("About According After As At In Since"),
    "first_conjunction": capitalised("But If Once So When While Yet"),
    "first_adverb": capitalised("Additionally Earlier Here However Now Then There"),
    "first_title": capitalised("Mr. Ms."),
    "first_word": (
        "{first_pronoun}|{first_determiner}|{first_preposition}|{first_conjunction}|{first_adverb}|{first_title}|{tag}"
    ),
}

FACES = {
    # Of the West, lying: :-)
    "hat": "[<>]",
    "lying_eyes": "[:;=]",
    "nose": "[-'*o]",
    "mouth": r"[()\[\]{]|[DOPdp]|[@\\|]",
    # Of Asia, upright: ^_^
    "shut_eye": "[<=>^x~]",
    "eye": "{shut_eye}|[-']",
    "bare_face": "{eye}_{eye}",
    "round_face": r"\({eye}[._]?{eye}\)",
    "long_face": r"\(({shut_eye}|')-({shut_eye}|['`])\)",
    # Where x.x was meant, surely by a slip, the tool knows this: an eye, ".[^x=", anything without "<", "<>]".
    "slip": r"{shut_eye}\.\[\^x=[^<]*<>\]",
}

NAMED = CHARACTERS | WORDS | NUMBERS | ADDRESSES | ABBREVIATIONS | FACES


class Rule(NamedTuple):
    why: str
    pattern: str
    context: str = ""
    form: Callable[[str], str | None] = keep
    back: int = 0


RULES = (
    # Words that are cut, and words that must not be.
    Rule("programming languages keep their signs: c++, f#", r"c\+\+|c#|f#"),
    Rule("the treebank cuts can not, 't was", words("cannot 'twas"), back=3),
    Rule("and gon na, got ta, lem me, 't is", words("gimme gonna gotta lemme wanna 'tis"), back=2),
    Rule("a mark-up tag is one token, spaces and all", "{tag}", form=unbroken),
    Rule("all dashes are alike, also as entities", "[–—―\u0096\u0097]|{entity_of_dash}", form=becomes("--")),
    Rule("an ampersand may be written as an entity", "&amp;", form=ampersand),
    Rule("news wires write punctuation as entities", "{entity_of_news}"),
    Rule("a clitic is cut off: dog 's", "{word}", "{clitic}", without_soft_hyphens),
    Rule("n't is cut off, the n with it: do n't", "{negated}", "{not}", without_soft_hyphens),
    Rule("a word may have points inside: a.k.a, Yahoo!s", "{word}", form=without_soft_hyphens),
    Rule(
        "words that begin or end with an apostrophe or hold one: 'n', ol', '70s, o'er, c'mon, d'oeuvre",
        "{cut_before}|{cut_after}|{cut_inside}|{cut_around}|{after_initial}|{after_vowel}",
    ),
    Rule("y' is cut off: y' all", "y{apostrophe}", "{letter}"),
    # Addresses.
    Rule("an address is one token, but not the punctuation after it", "{full_address}"),
    Rule("without its protocol it is known by its ends", "({www}|{machine}){path}?"),
    Rule("so is the address of electronic mail", "{mail}"),
    Rule("names and topics keep their sign: @name #topic", "{user}|{topic}"),
    Rule("a clitic, unless a word begins so: 's but not 'sup", "{clitic}", "[^A-Za-z]", quotes),
    Rule("n't, unless a word begins so", "{not}", "[^A-Za-z]", quotes),
    # Numbers.
    Rule("dates keep their strokes: 12/25/2013", "{date}"),
    Rule(
        "numbers and times keep signs, commas and colons: -3 1,000.5 10:30", "{sign}?{number}", "", without_soft_hyphens
    ),
    Rule("raised and lowered numbers are apart: m ²", "{small_sign}?({raised}+|{lowered}+)"),
    Rule("a fraction takes its whole number along: 5 7/8", "{fraction}", form=unbroken),
    Rule("fractions of one character are written out", characters("bc-be 2153-215e"), form=fraction),
    Rule("brackets that have their names already, and odd compounds", "{bracket_name}|{odd_compound}", form=ampersand),
    Rule("words joined by strokes are one: and/or", "{slashed_part}({stroke}{slashed_part}){1,2}"),
    Rule("a currency is apart from its number: US$ 5", "{capitals}?$|#"),
    Rule(
        "the treebank had two currencies, and others become one of them",
        characters("80 a2-a5 60b e3f 20a0 20a4 20ac ffe0-ffe1 ffe5-ffe6"),
        form=currency,
    ),
    # Abbreviations: their full stop belongs to them.
    Rule("a letter before a typical first word ends a sentence", r"{latin}\.", "{blank}+{first_word}{blank}", back=1),
    Rule("abbreviations that are such before numbers alone: no. 5", r"{numbered}\.", "{blank}?{digit}"),
    Rule("abbreviations before Ltd. go on", r"{limited}\.", "{space}(lim|ltd)"),
    Rule("abbreviations keep their stop", r"{ending}\.", "{any}{any}"),
    Rule("also at the end of the text", r"{ending}\."),
    Rule("titles, initials and acronyms keep theirs: Mr. J. U.S.", r"{leading}\."),
    Rule("they may lack it", "{leading}", "{space}"),
    Rule("so may acronyms: U.S", "{acronym}", "{blank}"),
    Rule("years keep their apostrophe: '99", "{apostrophe}{figure}{2}", "{blank}"),
    Rule("names of files are one: a.txt", "{file}", "{blank}|[!,.?]"),
    Rule(
        "a stop before other punctuation ends no sentence, so it marks an abbreviation: appt.,",
        r"{word}\.",
        "{separator}",
        without_soft_hyphens,
    ),
    Rule("a telephone number is one token, spaces and all", "{spaced_telephone}|{dotted_telephone}", form=telephone),
    # Signs.
    Rule("a double quote before a word opens", "{double_quote}", "{plain}|$", opening_quotes),
    Rule("other double quotes close", "{double_quote}", form=quotes),
    Rule("the delete character is nothing", "\u007f", form=drop),
    Rule("angles may be written as entities: less", "{less}", form=becomes("<")),
    Rule("and greater", "{greater}", form=becomes(">")),
    Rule("smileys are one: :-)", "{hat}?{lying_eyes}{nose}?{mouth}", "[^A-Za-z0-9]", brackets),
    Rule("smileys of Asia are one: ^_^ (=_=)", "{bare_face}|{round_face}|{long_face}|{slip}", form=brackets),
    Rule("brackets have names in the treebank, whose trees are written with them", r"\{", form=becomes("-LCB-")),
    Rule("the same", r"\}", form=becomes("-RCB-")),
    Rule("the treebank has no square ones; named alike", r"\[", form=becomes("-LSB-")),
    Rule("the same", r"\]", form=becomes("-RSB-")),
    Rule("round ones", r"\(", form=becomes("-LRB-")),
    Rule("the same", r"\)", form=becomes("-RRB-")),
    Rule("hyphens in a row are one; three or four are a dash", "-+", form=dashes),
    Rule("all ellipses are alike, also spaced", r"[…\u0085]|\.{3,5}|\.({inner_space}\.){2,4}", form=becomes("...")),
    Rule("other signs in a row are one as well", r"#+|\*+|@+|_+|(\\\*){1,3}"),
    Rule("separators are single", "{separator}"),
    Rule("ends of questions and calls are one, and no punctuation to coco-caption: ?!", "[!?]+"),
    Rule("other ends of sentences are single, and so are these signs", "[./=¡¿]|{foreign_stop}"),
    # Words of several parts. Those with points or commas inside are matched first.
    Rule("the stop of a compound before other punctuation", r"{hyphenated}\.", "{separator}", without_soft_hyphens),
    Rule("hyphens do not cut: t-shirt, u.s.-based", "{hyphenated}", form=without_soft_hyphens),
    Rule("the same, with apostrophes and other hyphens", r"{compound}\.", "{separator}"),
    Rule("hyphens and such apostrophes do not cut in any alphabet: château-d'eau", "{compound}"),
    Rule("the same, of initials", r"{initials}\.", "{separator}", ampersand),
    Rule("initials keep their sign: AT&T", "{initials}", form=ampersand),
    # What is left.
    Rule(
        "an apostrophe before a word of two letters opens a quotation",
        "'",
        "{latin}" + none_of(" \t\n\r" + NO_BREAK_SPACE),
        opening_quotes,
    ),
    Rule("clitics and n't where nothing else fits", "{clitic}|{not}", form=quotes),
    Rule(
        "a quotation mark, or two that may be one",
        "{apostrophe}|''|({single_quotes}|{double_quotes}){1,2}",
        form=quotes,
    ),
    Rule("angles in pairs may be quotation marks", "<<|>>"),
    Rule("symbols are single", r"[&+\\^|~]|" + characters(SYMBOLS + " 2044 207a-207b 208a-208b 24b6-24cf")),
    Rule("spaces end tokens and are none", "{space}+|&nbsp;|" + characters("0 200b 200e 200f feff"), form=drop),
    Rule("a line that ends within a caption is a blank", "{newline}", form=drop),
    Rule("all other characters are lost, emoji among them", "{any}", form=drop),
)
