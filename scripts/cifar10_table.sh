#!/usr/bin/env bash
# Train every run of the CIFAR-10 table, then write the tables with p-values:
#   scripts/cifar10_table.sh CIFAR10
# CIFAR10 is the data set's folder. Runs go to runs/cifar10; the same command resumes. Environment: EPOCHS (30) of each
# run, SEEDS ("0 1 2"), JOBS (1) runs at a time, DEVICE (auto), REPORT (reports/cifar10), BUDGET (none): seconds after
# which runs are stopped, to be resumed another time; the tables then have only the finished ones.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,7s/^# *//p' "$0" >&2; exit 2; }
data=$1
runs=runs/cifar10 out=${REPORT:-reports/cifar10} epochs=${EPOCHS:-30} device=${DEVICE:-auto}
[ "${JOBS:-1}" -eq 1 ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$runs" "$out"

# Folder, title, configuration, settings. CNN and CNN-LSTM have equal numbers of parameters in each of two sizes.
rows=(
    "cnn|CNN|cifar10-cnn"
    "cnn-lstm|CNN-LSTM|cifar10-cnn-lstm"
    "cnn-lrn|CNN, local normalization|cifar10-cnn-lrn"
    "lstm|LSTM on rows|cifar10-lstm"
    "gru|GRU on rows|cifar10-gru"
    "cnn-lstm-shuffled|CNN-LSTM, rows shuffled|cifar10-cnn-lstm|model.shuffle_rows=true"
    "cnn-lstm-reshape|CNN-LSTM, reshape|cifar10-cnn-lstm|model.arrangement=reshape"
    "cnn-200k|CNN, 200 k parameters|cifar10-cnn|model.fully_connected=[40]"
    "cnn-lstm-200k|CNN-LSTM, 200 k parameters|cifar10-cnn-lstm|model.hidden_dim=128"
    "small-cnn|modern small CNN|cifar10-small-cnn"
)

finished() { grep -qs '"kind": "end"' "$runs/$1/log.jsonl"; }

train() {  # FOLDER TITLE CONFIG SEED [SETTING...]
    local folder=$runs/$1 settings=(--set "name=$2, CIFAR-10" --set "output=$runs/$1" --set "train.seed=$4") config=$3
    shift 4
    for setting in "$@"; do settings+=(--set "$setting"); done
    local limit=()
    [ -z "${BUDGET-}" ] || limit=(timeout --signal=KILL "$((BUDGET > SECONDS ? BUDGET - SECONDS : 1))")
    "${limit[@]}" captioner train "$config" --set data.root="$data" --set train.epochs="$epochs" \
        --set train.device="$device" "${settings[@]}" > "$folder.txt" 2>&1 || echo "not finished: $folder, see $folder.txt" >&2
}

for seed in ${SEEDS:-0 1 2}; do
    for row in "${rows[@]}"; do
        IFS='|' read -r name title config settings <<< "$row"
        finished "$name-seed$seed" && continue
        while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-1}" ]; do wait -n || true; done
        [ -z "${BUDGET-}" ] || [ "$SECONDS" -lt "$BUDGET" ] || break 2
        # shellcheck disable=SC2086  # no setting, or one
        train "$name-seed$seed" "$title" "$config" "$seed" ${settings-} &
    done
done
wait

ready=()
for row in "${rows[@]}"; do
    for seed in ${SEEDS:-0 1 2}; do
        ! finished "${row%%|*}-seed$seed" || ready+=("$runs/${row%%|*}-seed$seed")
    done
done
[ "${#ready[@]}" -gt 0 ] || { echo "no run is finished" >&2; exit 1; }
[ "$device" != auto ] || device=cpu
for baseline in "cnn|CNN" "cnn-lstm|CNN-LSTM" "cnn-200k|CNN, 200 k parameters"; do
    finished "${baseline%%|*}-${ready[0]##*-}" || continue
    python -m eval.classification "${ready[@]}" --root "$data" --baseline "${baseline##*|}, CIFAR-10" \
        --device "$device" --title CIFAR-10 -o "$out" | tee "$out/against-${baseline%%|*}.md"
done
