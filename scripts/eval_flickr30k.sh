#!/usr/bin/env bash
# Write the report on Flickr30k test (Karpathy's split); see eval_dataset.sh:
#   scripts/eval_flickr30k.sh DATA STORES RUN...
set -euo pipefail
exec "$(dirname "$0")/eval_dataset.sh" Flickr30k flickr30k "$@"
