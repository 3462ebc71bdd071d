"""Write anew what the Java tool makes of the captions of tests/data/ptb_golden.jsonl, for where there is no Java.

    python -m tests.oracles.ptb_golden

To add a caption, append a line ``["caption"]`` to that file first. None may be from a data set.
"""

import json
import subprocess
from pathlib import Path

from tests.oracles import ptb_java

FILE = Path(__file__).parents[1] / "fixtures" / "ptb_golden.jsonl"


def main() -> None:
    captions = [json.loads(line)[0] for line in FILE.read_text().splitlines()[1:]]
    once = ptb_java.tokens(captions)
    again = ptb_java.tokens([" ".join(tokens) for tokens in once])
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr.splitlines()[0]
    about = {
        "tool": f"PTBTokenizer of {ptb_java.JAR} in pycocoevalcap 1.2, -preserveLines -lowerCase",
        "java": java,
        "command": "python -m tests.oracles.ptb_golden",
        "fields": ["caption", "tokens without coco-caption's punctuation", "tokens of these tokens"],
    }
    lines = [about, *zip(captions, once, again, strict=True)]
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
