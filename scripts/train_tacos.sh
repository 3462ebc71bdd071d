#!/usr/bin/env bash
# Sentences for the clips of TACoS, from the corpus to tables with p-values, and a report:
#   scripts/train_tacos.sh [--demo] [SETTING...]
# Labels, CRF, translation (SMT), describers (a), (b) and (c), nearest tuple and template; every SETTING, such as
# train.epochs=5, goes to every describer. --demo makes a small corpus and small describers. Environment:
#   DATA=data/tacos    the corpus, in FORMAT=tacos (docs/tacos.md)
#   FEATURES=STORE     a feature store of its clips; without it vision is SIMULATED, and every file and table says so,
#   SNRS="0.08"        once for each of these signal-to-noise ratios
#   SEEDS="0 1 2"      of the describers
#   OUT=runs/tacos     where everything goes; given again, it goes on where it was
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,10s/^# *//p' "$0"; exit ;; esac

settings=() demo=
[ "${1-}" != --demo ] || { demo=yes; shift; }
if [ "$demo" ]; then
    out=${OUT-runs/tacos-demo} data=${DATA-} seeds=${SEEDS-0} snrs=${SNRS-0.2} title=Kitchen
    set -- model.hidden_dim=64 model.embedding_dim=32 train.batch_size=32 train.epochs=30 train.evaluate_every=5 train.lr=5e-3 \
        data.min_count=1 model.dropout=0.2 "$@"
    [ "$data" ] || { data=$out/corpus; [ -e "$data/video_info.json" ] || python -m scripts.kitchen_corpus "$data"; }
else
    out=${OUT-runs/tacos} data=${DATA-data/tacos} seeds=${SEEDS-0 1 2} snrs=${SNRS-0.08} title=TACoS
fi
for setting in "$@"; do settings+=(--set "$setting"); done
[ -e "$data" ] || {
    echo "$data: no such folder. DATA=folder names the corpus:" >&2
    captioner data list tacos-captions >&2
    exit 1
}

made() {  # FILE COMMAND...: runs the command that makes the file, unless it is there
    [ -e "$1" ] || "${@:2}"
}
mkdir -p "$out"
clips=$out/clips/clips.jsonl sentences=$out/clips/sentences.jsonl
made "$out/clips/labels.json" python -m preprocess.tacos "$data" --format "${FORMAT-tacos}" -o "$out/clips"

describer() {  # LETTER NAME KIND SEED: trains one and describes the test clips
    local name=$2$said run=$here/$1-seed$4 potentials=$here/potentials.h5@$3 captions=$results/$1-$3$mark-seed$4.json
    reported+=("$run")
    [ ! -e "$captions" ] || return 0
    captioner train "tacos-$1" --set name="$name" --set output="$run" --set data.root="$sentences" --set train.seed="$4" \
        --set "data.features=[$potentials]" "${settings[@]}"
    captioner caption --model "$run" --features "$potentials" --split test -o "$captions"
}

recognizer() {  # FOLDER STORE MARK SAID: everything that follows from one feature store
    here=$1 results=$1/results mark=$3 said=$4 reported=()
    mkdir -p "$results"
    local potentials=$here/potentials.h5 kind seed
    made "$here/crf.safetensors" captioner crf train --clips "$clips" --features "$2" --folds 5 -o "$here/crf.safetensors"
    made "$potentials" captioner crf predict "$here/crf.safetensors" --clips "$sentences" --features "$2" --truth 0.5 \
        -o "$potentials"

    local shared=(--clips "$clips" --potentials "$potentials")
    for kind in max prob; do
        made "$results/smt-$kind$mark.json" python -m eval.smt "${shared[@]}" --input $kind -o "$results/smt-$kind$mark.json"
        made "$results/nearest-$kind$mark.json" \
            python -m eval.tuples nearest "${shared[@]}" --input $kind -o "$results/nearest-$kind$mark.json"
    done
    made "$results/template$mark.json" python -m eval.tuples template "${shared[@]}" -o "$results/template$mark.json"
    for seed in $seeds; do
        describer a "(a), CRF max" max "$seed"
        describer b "(b), CRF max" max "$seed"
        describer c "(c), CRF prob" prob "$seed"
    done
    python -m eval.report "${reported[@]}" "$results"/{smt,nearest}-{max,prob}"$mark".json "$results/template$mark.json" \
        --baseline "(c), CRF prob$said" --root "$clips" --format clips --published tacos --title "$title$said" \
        --metrics bleu,cider -o "$here/report" > "$here/table.md"
    folders+=("$here")
}

folders=()
if [ "${FEATURES-}" ]; then
    recognizer "$out/features" "$FEATURES" "" ""
else
    for snr in $snrs; do
        store=$out/simulated-snr$snr/features.h5
        made "$store" python -m preprocess.synthetic_features "$clips" -o "$store" --snr "$snr"
        recognizer "$out/simulated-snr$snr" "$store" -simulated ", simulated vision (snr $snr)"
    done
fi
python -m eval.clip_captioners "${folders[@]}" --clips "$clips" --csv "$out/scores.csv" --plot "$out/scores.png"
