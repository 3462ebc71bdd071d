#!/usr/bin/env bash
# Captions for the clips of TACoS, from the corpus to tables with p-values and a report:
#   scripts/train_tacos.sh [--demo] [SETTING...]
# Labels, CRF, statistical translation (SMT), clip captioners (a), (b) and (c), nearest tuple and template. Every SETTING,
# such as train.epochs=5, goes to every clip captioner. --demo makes a small corpus and small models. Environment:
#   DATA=data/tacos    the corpus, in FORMAT=tacos (docs/tacos.md)
#   FEATURES=STORE     a feature store of its clips; without it features are SYNTHETIC, and every file and table says so,
#   SNRS="0.08"        for each of these signal-to-noise ratios
#   DRAWS=20           observations of each training clip
#   FOLDS=5            cross-validation models of the CRF, which predict training clips
#   SEEDS="0 1 2"      seeds of the clip captioners
#   GOLD_SHARE=0.5     share of gold labels in what (c) learns from; the better the CRF, the larger
#   OUT=runs/tacos     output folder; an interrupted run continues where it stopped
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,13s/^# *//p' "$0"; exit ;; esac

settings=() demo= share=${GOLD_SHARE-0.5}
[ "${1-}" != --demo ] || { demo=yes; shift; }
if [ "$demo" ]; then
    draws=${DRAWS-4} out=${OUT-runs/tacos-demo} data=${DATA-} seeds=${SEEDS-0} snrs=${SNRS-0.2} title=Kitchen
    set -- model.hidden_dim=64 model.embedding_dim=32 train.batch_size=32 train.epochs=30 train.evaluate_every=5 train.lr=5e-3 \
        data.min_count=1 model.dropout=0.2 "$@"
    [ "$data" ] || { data=$out/corpus; [ -e "$data/video_info.json" ] || python -m scripts.kitchen_corpus "$data"; }
else
    draws=${DRAWS-20} out=${OUT-runs/tacos} data=${DATA-data/tacos} seeds=${SEEDS-0 1 2} snrs=${SNRS-0.08} title=TACoS
fi
for setting in "$@"; do settings+=(--set "$setting"); done
[ -e "$data" ] || {
    echo "$data: no such folder. DATA=folder names the corpus:" >&2
    captioner data list tacos-captions >&2
    exit 1
}

make_file() {  # FILE COMMAND...: runs the command that writes FILE, unless it exists
    [ -e "$1" ] || "${@:2}"
}
mkdir -p "$out"
clips=$out/clips/clips.jsonl sentences=$out/clips/sentences.jsonl
make_file "$out/clips/labels.json" python -m preprocess.tacos "$data" --format "${FORMAT-tacos}" -o "$out/clips"

clip_captioner() {  # LETTER NAME KIND SEED [OPTION...]: trains one and captions the test clips
    local name=$2$note run=$here/$1-seed$4 features=$here/label-predictions.h5@$3
    local captions=$results/$1-$3$mark-seed$4.json
    runs+=("$run")
    [ ! -e "$captions" ] || return 0
    captioner train "tacos-$1" --set name="$name" --set output="$run" --set data.root="$sentences" --set train.seed="$4" \
        --set "data.features=[$features]" "${@:5}" "${settings[@]}"
    captioner caption --model "$run" --features "$features" --split test -o "$captions"
}

recognizer() {  # FOLDER STORE MARK NOTE: all steps that follow from one feature store
    here=$1 results=$1/results mark=$3 note=$4 runs=()
    mkdir -p "$results"
    local predictions=$here/label-predictions.h5 kind seed file
    make_file "$here/crf.safetensors" \
        captioner crf train --clips "$clips" --features "$2" --folds "${FOLDS-5}" -o "$here/crf.safetensors"
    make_file "$predictions" captioner crf predict "$here/crf.safetensors" --clips "$clips" --features "$2" -o "$predictions"

    local inputs=(--clips "$clips" --label-predictions "$predictions")
    for kind in map marginals; do
        file=$results/smt-$kind$mark.json
        make_file "$file" python -m eval.smt "${inputs[@]}" --input $kind -o "$file"
        file=$results/smt-untuned-$kind$mark.json
        make_file "$file" python -m eval.smt "${inputs[@]}" --input $kind --no-tune -o "$file"
        file=$results/nearest-$kind$mark.json
        make_file "$file" python -m eval.tuples nearest "${inputs[@]}" --input $kind -o "$file"
    done
    file=$results/template$mark.json
    make_file "$file" python -m eval.tuples template "${inputs[@]}" -o "$file"
    for seed in $seeds; do
        clip_captioner a "(a), CRF max" map "$seed"
        clip_captioner b "(b), CRF max" map "$seed"
        clip_captioner c "(c), CRF prob" marginals "$seed" --set "data.gold_share=[$share,$share]"
    done
    python -m eval.report "${runs[@]}" "$results"/{smt,smt-untuned,nearest}-{map,marginals}"$mark".json \
        "$results/template$mark.json" \
        --baseline "(c), CRF prob$note" --root "$clips" --format clips --published tacos --title "$title$note" \
        --metrics bleu,cider -o "$here/report" > "$here/table.md"
    folders+=("$here")
}

folders=()
if [ "${FEATURES-}" ]; then
    recognizer "$out/features" "$FEATURES" "" ""
else
    for snr in $snrs; do
        store=$out/synthetic-snr$snr/features.h5
        make_file "$store" python -m preprocess.synthetic_features "$clips" -o "$store" --snr "$snr" --draws "$draws"
        recognizer "$out/synthetic-snr$snr" "$store" -synthetic ", synthetic features (snr $snr)"
    done
fi
python -m eval.clip_captioners "${folders[@]}" --clips "$clips" --csv "$out/scores.csv" --plot "$out/scores.png"
