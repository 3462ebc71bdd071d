"""``python -m preprocess.extract_features``: features of a data set's images; the same as ``captioner extract``."""

import sys

from captioner.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "extract")
    sys.exit(main())
