#!/usr/bin/env bash
# Makes the streams of tests/reference/video with the program ffmpeg (Debian 12: 5.1): eight small frames with a key frame each
# four, some with reordered frames (B-frames), each frame begun by a delimiter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/video"
make() {
  ffmpeg -nostdin -y -loglevel error -f lavfi -i testsrc2=size=48x32:rate=30 -frames:v 8 -pix_fmt yuv420p -g 4 "${@:2}" "$1"
}
h264=(-c:v libx264 -bsf:v h264_metadata=aud=insert -f h264) h265=(-c:v libx265 -x265-params log-level=none -bsf:v hevc_metadata=aud=insert -f hevc)
make live.h264 "${h264[@]}" -preset ultrafast -tune zerolatency
make reordered.h264 "${h264[@]}" -preset veryfast -bf 2
make live.h265 "${h265[@]}" -preset ultrafast -tune zerolatency
make reordered.h265 "${h265[@]}" -preset veryfast -bf 2
