#!/usr/bin/env bash
# The README's Flickr8k table: features, language pre-training, every run, one Markdown table at the end.
#   scripts/flickr8k_table.sh FLICKR8K_FOLDER FLICKR30K_FOLDER BACKBONE_KEY...
# The backbones' features are concatenated. Everything is kept under runs/flickr8k and resumes when run again.
set -euo pipefail
[ $# -ge 3 ] || { sed -n 's/^#  *//p' "$0" | head -3 >&2; exit 2; }
flickr8k=$1 flickr30k=$2; shift 2
out=runs/flickr8k
mkdir -p "$out"

stores=() n=0
for key in "$@"; do
    n=$((n + 1))
    stores+=("$out/features-$n.h5")
    captioner extract "$flickr8k/images" --backbone "$key" --precision bfloat16 -o "$out/features-$n.h5"
done
features="[$(IFS=,; echo "${stores[*]}")]"

# No caption of a Flickr8k dev or test photograph is learnt through Flickr30k, which has them all.
python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/sentences.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" "$flickr8k/Flickr_8k.testImages.txt"
captioner train pretrain-text --set data.text="$out/sentences.txt" --set output="$out/pretrain-text"

run() {  # NAME CONFIG SEED [SETTING...]
    local name=$1 config=$2 seed=$3; shift 3
    local settings=()
    for setting in "$@"; do settings+=(--set "$setting"); done
    captioner train "$config" --set data.root="$flickr8k" --set data.features="$features" --set name="$name" \
        --set output="$out/${name// /-}-seed$seed" --set train.seed="$seed" "${settings[@]}"
}
pretrained="train.init_from=$out/pretrain-text/best.safetensors"
