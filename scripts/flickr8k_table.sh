#!/usr/bin/env bash
# Every run of the Flickr8k table, and the table at the end:
#   scripts/flickr8k_table.sh FLICKR8K FLICKR30K BACKBONE...
# FLICKR8K and FLICKR30K are data folders (the photographs in FLICKR8K/images), BACKBONE keys as captioner extract takes
# them; their features are concatenated. Everything goes to runs/flickr8k; given again, it goes on where it was.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
flickr8k=$1 flickr30k=$2; shift 2
out=runs/flickr8k
mkdir -p "$out"

stores=()
for key in "$@"; do
    stores+=("$out/features-$((${#stores[@]} + 1)).h5")
    captioner extract "$flickr8k/images" --backbone "$key" --precision bfloat16 -o "${stores[-1]}"
done
features="[$(IFS=,; echo "${stores[*]}")]"

run() {  # FOLDER NAME CONFIG SEED [SETTING...]
    local folder=$out/$1-seed$4 name=$2 config=$3 seed=$4; shift 4
    local settings=()
    for setting in "$@"; do settings+=(--set "$setting"); done
    captioner train "$config" --set data.root="$flickr8k" --set data.features="$features" --set name="$name" \
        --set output="$folder" --set train.seed="$seed" --set train.dev_beam=1 "${settings[@]}"
}

scaled="model.normalise=dimension" # each dimension to deviation 1, instead of roots with one scale for each network
run 4f-scratch "4f, no pre-training, each dimension scaled" flickr8k-4f 0 $scaled model.dropout=0.5

# No caption of a Flickr8k dev or test photograph is learnt through Flickr30k, which has them all.
python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/sentences.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" "$flickr8k/Flickr_8k.testImages.txt"
captioner train pretrain-text --set data.text="$out/sentences.txt" --set output="$out/pretrain-text" \
    --set data.vocabulary_from="$out/4f-scratch-seed0/best.safetensors"
pretrained=train.init_from=$out/pretrain-text/best.safetensors

run 4f-scaled "4f, pre-trained, each dimension scaled" flickr8k-4f 0 "$pretrained" $scaled train.epochs=8
run 4f-cider "the same, then trained for CIDEr-D" flickr8k-4f-cider 0 $scaled \
    train.init_from="$out/4f-scaled-seed0/best.safetensors"
for run in "1u 0" "2f 0" "2u 0" "2u 1" "2u 2" "4f 0" "4f 1" "4f 2"; do
    read -r wiring seed <<< "$run"
    run "$wiring" "$wiring" "flickr8k-$wiring" "$seed" "$pretrained"
done
python -m eval.compare "$out"/*-seed* --published flickr8k
