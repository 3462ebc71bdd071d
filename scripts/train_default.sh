#!/usr/bin/env bash
# The model that ships, from photographs and captions to captioner/assets/default.safetensors:
#   scripts/train_default.sh FLICKR8K FLICKR30K PHOTOS TEACHER STRONG
# FLICKR8K and FLICKR30K are data folders (the photographs in FLICKR8K/images), PHOTOS a folder of further photographs
# without captions, TEACHER and STRONG records of trained networks (docs/default-model.md): TEACHER answers for every
# crop, STRONG for whole images. Everything goes to runs/default; given again, it goes on where it was.
# STEPS=20 EPOCHS=1 in front try it out on a few hundred images; the model then goes to runs/default alone.
set -euo pipefail
[ $# -eq 5 ] || { sed -n '2,7s/^# *//p' "$0" >&2; exit 2; }
flickr8k=$1 flickr30k=$2 photos=$3 teacher=$4 strong=$5
out=runs/default model=captioner/assets/default.safetensors
[ -z "${STEPS-}${EPOCHS-}" ] || model=$out/default.safetensors
mkdir -p "$out"

extract() {  # STORE BACKBONE [OPTION...]: features of all Flickr8k photographs, as they are and mirrored
    local store=$1 backbone=$2; shift 2
    captioner extract "$flickr8k/images" --backbone "$backbone" "$@" -o "$out/$store.h5"
    captioner extract "$flickr8k/images" --backbone "$backbone" "$@" --mirror -o "$out/$store-mirrored.h5"
}
stores() { echo "[$out/teacher$1.h5,$out/strong$1.h5]"; }  # of both networks, as a YAML list
train() {  # CONFIG FOLDER [SETTING...]
    local config=$1 folder=$2 settings=(); shift 2
    for setting in "$@"; do settings+=(--set "$setting"); done
    captioner train "$config" --set output="$out/$folder" "${settings[@]}" ${EPOCHS:+--set train.epochs="$EPOCHS"}
}

# 1. What the two networks see in the photographs.
extract teacher "local:$teacher" --precision bfloat16
extract strong "local:$strong" --precision bfloat16

# 2. The CNN, which sees Flickr8k's training photographs alone, never dev or test. About 3 hours on two cores.
tr -d '\r' < "$flickr8k/Flickr_8k.trainImages.txt" | sed "s#^#$flickr8k/images/#" > "$out/photographs.txt"
python -m scripts.distil_cnn --teacher "$teacher" --images "$out/photographs.txt" --images "$photos" \
    --features "$out/teacher.h5" --features "$out/strong.h5" \
    --features-mirrored "$out/teacher-mirrored.h5" --features-mirrored "$out/strong-mirrored.h5" \
    --data "$flickr8k" -o "$out/cnn/cnn.safetensors" ${STEPS:+--steps "$STEPS"}
extract compact compact --weights "$out/cnn/cnn.safetensors"

# 3. Sentences without images; none that people wrote about a photograph of Flickr8k's dev or test. 6 minutes.
python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/sentences.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" --exclude "$flickr8k/Flickr_8k.testImages.txt"
train pretrain-text pretrain-text data.text="$out/sentences.txt"
common=(data.root="$flickr8k" train.init_from="$out/pretrain-text/best.safetensors" train.evaluate_every=5)

# 4. Captioners that see through both networks (dev BLEU-4 22.9, 5 minutes each), and the decoder that learns from people
# and from them (10 minutes). docs/default-model.md has each stage's scores.
for seed in 0 1 2; do
    train flickr8k-2u "2u-seed$seed" "${common[@]}" train.seed="$seed" data.features="$(stores "")" \
        data.features_mirrored="$(stores -mirrored)"
done
train flickr8k-2f 2f "${common[@]}" loss.label_smoothing=0 \
    data.features="$out/compact.h5" data.features_mirrored="$out/compact-mirrored.h5" \
    loss.teachers="[$out/2u-seed0/best.safetensors,$out/2u-seed1/best.safetensors,$out/2u-seed2/best.safetensors]" \
    loss.teacher_features="$(stores "")" loss.teacher_features_mirrored="$(stores -mirrored)"
python -m scripts.pack_model "$out/2f/best.safetensors" --weights "$out/cnn/cnn.safetensors" \
    --dtype int8 -o "$out/packed.safetensors"
captioner export "$out/packed.safetensors" -o "$model"  # with graphs for ONNX Runtime
