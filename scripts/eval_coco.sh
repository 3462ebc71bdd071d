#!/usr/bin/env bash
# Write the report on the test part of Karpathy's split of COCO (DATA holds dataset_coco.json); see eval_dataset.sh:
#   scripts/eval_coco.sh DATA STORES RUN...
set -euo pipefail
exec "$(dirname "$0")/eval_dataset.sh" COCO karpathy "$@"
