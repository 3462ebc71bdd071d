#!/usr/bin/env bash
# From checkpoints to a report on a test split, with baselines and people's captions. The same command resumes.
# eval_flickr8k.sh, eval_flickr30k.sh and eval_coco.sh call it with the first two arguments filled in:
#   scripts/eval_dataset.sh TITLE FORMAT DATA STORES RUN...
# DATA is the data set's folder, STORES the feature stores, separated by commas, for the nearest-neighbor baselines. RUN
# is a training run's folder or a file of captions; the others are compared with the first one. The report is
# reports/title/index.html. REPORT holds more options of `python -m eval.report`: REPORT="--beam-size 3 --baseline 2u".
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,7s/^# *//p' "$0" >&2; exit 2; }
title=$1 format=$2 data=$3 stores="--features ${4//,/ --features }"; shift 4
name=${title,,}
out=reports/$name
mkdir -p "$out/baselines"

baseline() {  # FILE BASELINE [OPTION...]: writes FILE, unless it exists
    local file=$out/baselines/$1.json; shift
    [ -e "$file" ] || [ -e "${file%.json}-caption1.json" ] ||
        python -m eval.baselines "$@" --data "$data" --format "$format" --split test -o "$file"
}

# shellcheck disable=SC2086  # one --features for each store
{
    baseline 30-nn neighbor -k 30 $stores
    baseline 1-nn neighbor $stores
    baseline 1-nn-mean neighbor --each $stores
}
baseline typical typical
baseline ngram ngram
baseline human human

# shellcheck disable=SC2086
python -m eval.report "$@" "$out"/baselines/{30-nn,1-nn,1-nn-mean-caption?,typical,ngram,human-caption?}.json \
    --root "$data" --format "$format" --split test --published "$name" --title "$title" --images -o "$out" ${REPORT-} \
    > "$out/table.md"
cat "$out/table.md"
