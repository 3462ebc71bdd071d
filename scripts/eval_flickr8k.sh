#!/usr/bin/env bash
# Write the report on Flickr8k test; see eval_dataset.sh:
#   scripts/eval_flickr8k.sh DATA STORES RUN...
set -euo pipefail
exec "$(dirname "$0")/eval_dataset.sh" Flickr8k flickr8k "$@"
