#!/usr/bin/env bash
# Train every run of the Flickr8k table, then write the table:
#   scripts/flickr8k_table.sh FLICKR8K FLICKR30K BACKBONE...
# FLICKR8K and FLICKR30K are data folders (with the photos in FLICKR8K/images), BACKBONE keys as for captioner extract;
# the features of several are concatenated. Everything goes to runs/flickr8k; the same command resumes.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
flickr8k=$1 flickr30k=$2; shift 2
out=runs/flickr8k
mkdir -p "$out"

extracted() {  # SUFFIX [OPTION...]: a store for each backbone, as a YAML list in $list
    local suffix=$1 stores=() key; shift
    for key in "${keys[@]}"; do
        stores+=("$out/features-$((${#stores[@]} + 1))$suffix.h5")
        captioner extract "$flickr8k/images" --backbone "$key" --precision bfloat16 -o "${stores[-1]}" "$@"
    done
    list="[$(IFS=,; echo "${stores[*]}")]"
}
keys=("$@")
extracted ""; features=$list
extracted -mirrored --mirror; mirrored=$list

run() {  # FOLDER NAME CONFIG SEED [SETTING...]
    local folder=$out/$1-seed$4 name=$2 config=$3 seed=$4; shift 4
    local settings=()
    for setting in "$@"; do settings+=(--set "$setting"); done
    captioner train "$config" --set data.root="$flickr8k" --set data.features="$features" --set name="$name" \
        --set data.features_mirrored="$mirrored" --set output="$folder" --set train.seed="$seed" \
        --set train.evaluate_every=5 "${settings[@]}"
}

run 4f-scratch "4f, without pre-training" flickr8k-4f 0

# Flickr30k has all photos of Flickr8k; captions of its dev and test photos must not be learned.
python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/sentences.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" --exclude "$flickr8k/Flickr_8k.testImages.txt"
captioner train pretrain-text --set data.text="$out/sentences.txt" --set output="$out/pretrain-text" \
    --set data.vocabulary_from="$out/4f-scratch-seed0/best.safetensors"
pretrained=train.init_from=$out/pretrain-text/best.safetensors

for run in "4f 0" "2u 0" "4f 1" "2u 1" "4f 2" "2u 2" "2f 0" "1u 0"; do
    read -r wiring seed <<< "$run"
    run "$wiring" "$wiring" "flickr8k-$wiring" "$seed" "$pretrained"
done
teachers=$(printf "%s," "$out"/2u-seed{0,1,2}/best.safetensors)
for seed in 0 1 2; do
    run 4f-taught "4f, distilled from three 2u" flickr8k-4f "$seed" "$pretrained" "loss.teachers=[${teachers%,}]" \
        loss.label_smoothing=0
done
python -m eval.report "$out"/{4f,2u,4f-taught}-seed{0,1,2} "$out"/{2f,1u,4f-scratch}-seed0 --root "$flickr8k"
