#!/usr/bin/env bash
# Activity recognition on UCF-101, from its videos to the LRCN paper's table (Donahue et al., arXiv 1411.4389, table 1):
#   scripts/train_ucf101.sh [--demo] [SETTING...]
# Extracts features of frames and of optical flow, also mirrored; trains single frames and LRCN for each stream on the
# official splits 1-3; prints their accuracies, with fusions, and writes a page. Every SETTING, such as train.epochs=5,
# goes to every run. --demo makes clips of moving textures, in the layout of UCF-101, and small models. Environment:
#   DATA=data/ucf101                    holds UCF-101/ and ucfTrainTestlist/
#   BACKBONE=torchvision:vgg16@fc6      the network that reads frames
#   FRAMES=32                           frames of a video
#   SPLITS="1 2 3"  SEEDS="0"           official splits, and seeds
#   OUT=runs/ucf101                     output folder; an interrupted run continues where it stopped
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,12s/^# *//p' "$0"; exit ;; esac

settings=() demo=
[ "${1-}" != --demo ] || { demo=yes; shift; }
if [ "$demo" ]; then
    out=${OUT-runs/ucf101-demo} data=${DATA-} backbone=${BACKBONE-pixels:16} frames=${FRAMES-8} title="Like UCF-101 (demo)"
    set -- model.hidden_dim=32 model.input_dropout=0.2 data.dev_share=0.2 train.batch_size=16 train.lr=3e-3 "$@"
    [ "$data" ] || { data=$out/clips; [ -e "$data/ucfTrainTestlist/testlist03.txt" ] || python -m scripts.moving_clips "$data"; }
else
    out=${OUT-runs/ucf101} data=${DATA-data/ucf101} backbone=${BACKBONE-torchvision:vgg16@fc6} frames=${FRAMES-32} title=UCF-101
fi
for setting in "$@"; do settings+=(--set "$setting"); done
[ -e "$data/UCF-101" ] || {
    echo "$data/UCF-101: no such folder. DATA=folder holds it; see https://www.crcv.ucf.edu/data/UCF101.php" >&2
    exit 1
}
mkdir -p "$out"

extract() {  # NAME OPTION...: a feature store, and that of the mirrored videos
    captioner extract "$data/UCF-101" -b "$backbone" --frames "$frames" "${@:2}" -o "$out/$1.h5"
    captioner extract "$data/UCF-101" -b "$backbone" --frames "$frames" "${@:2}" --mirror -o "$out/$1-mirrored.h5"
}
extract rgb
extract flow --flow dis

runs=()
for stream in rgb flow; do
    for model in "single-frame none" "LRCN lstm"; do
        read -r name cell <<<"$model"
        for split in ${SPLITS-1 2 3}; do
            for seed in ${SEEDS-0}; do
                run=$out/$stream-$name-split$split-seed$seed
                runs+=("$run")
                captioner train activity-ucf101 --set name="$stream, $name" --set output="$run" --set data.root="$data" \
                    --set data.split="$split" --set train.seed="$seed" --set model.cell="$cell" \
                    --set "data.features=[$out/$stream.h5]" --set "data.features_mirrored=[$out/$stream-mirrored.h5]" \
                    "${settings[@]}"
            done
        done
    done
done
python -m eval.recognition "${runs[@]}" --title "$title" -o "$out/report" | tee "$out/table.md"
