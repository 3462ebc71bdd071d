#!/usr/bin/env bash
# The model that ships, from photographs and captions to captioner/assets/default.safetensors:
#   scripts/train_default_model.sh FLICKR8K FLICKR30K PHOTOS TEACHER
# FLICKR8K and FLICKR30K are data folders (the photographs in FLICKR8K/images), PHOTOS a folder of further photographs
# without captions, TEACHER a backbone record. Everything goes to runs/default; given again, it goes on where it was.
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
flickr8k=$1 flickr30k=$2 photos=$3 teacher=$4
out=runs/default
mkdir -p "$out"

# The CNN sees Flickr8k's training photographs alone, never dev or test.
tr -d '\r' < "$flickr8k/Flickr_8k.trainImages.txt" | sed "s#^#$flickr8k/images/#" > "$out/photographs.txt"
python -m scripts.distil_cnn --teacher "$teacher" --images "$out/photographs.txt" "$photos" -o "$out/cnn/cnn.safetensors"
captioner extract "$flickr8k/images" --backbone compact --weights "$out/cnn/cnn.safetensors" -o "$out/features.h5"

python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/sentences.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" "$flickr8k/Flickr_8k.testImages.txt"
captioner train pretrain-text --set data.text="$out/sentences.txt" --set output="$out/pretrain-text"
captioner train flickr8k-2f --set data.root="$flickr8k" --set data.features="$out/features.h5" \
    --set train.init_from="$out/pretrain-text/best.safetensors" --set train.dev_beam=1 --set output="$out/2f"
python -m scripts.pack_model "$out/2f/best.safetensors" --weights "$out/cnn/cnn.safetensors" \
    -o captioner/assets/default.safetensors
