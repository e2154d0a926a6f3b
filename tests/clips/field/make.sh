#!/bin/sh
# Makes the files of this folder from ../people-576-high.mp4, with FFmpeg 5.1 as Debian 12 has it. The tests read what
# is committed; this says where it came from.
set -eu
cd "$(dirname "$0")"
V="-i ../people-576-high.mp4 -t 3 -an"
FF="ffmpeg -v error -y -bitexact"
X264="-c:v libx264 -preset slow -crf 34 -pix_fmt yuv420p -threads 1"
X265="-c:v libx265 -preset slow -crf 34 -pix_fmt yuv420p"
QUIET="log-level=none:info=0:pools=1:frame-threads=1"
SMALL="scale=320:240,fps=10"

# What scripted cameras film.
$FF $V -vf $SMALL $X264 -x264-params keyint=10:min-keyint=10:scenecut=0:bframes=0 closed.h264
$FF $V -vf $SMALL $X264 -x264-params keyint=10:min-keyint=1:scenecut=0:bframes=2:open-gop=1 open-gop.h264
$FF $V -vf $SMALL $X264 -x264-params keyint=10:intra-refresh=1:bframes=0 intra-refresh.h264
$FF $V -vf $SMALL $X265 -x265-params $QUIET:keyint=10:min-keyint=10:scenecut=0:bframes=0:open-gop=0 closed.h265
$FF $V -vf $SMALL $X265 -x265-params $QUIET:keyint=10:min-keyint=10:scenecut=0:bframes=2:open-gop=1 open-gop.h265
J="-c:v mjpeg -huffman default -q:v 12 -f mjpeg"
$FF -i ../people-576-high.mp4 -an -vf $SMALL -frames:v 3 -pix_fmt yuvj420p -threads 1 $J 420.mjpeg
$FF -i ../people-576-high.mp4 -an -vf $SMALL -frames:v 3 -pix_fmt yuvj422p -threads 1 $J 422.mjpeg
$FF -i ../people-576-high.mp4 -an -vf $SMALL -frames:v 3 -pix_fmt yuvj420p -threads 4 -thread_type slice $J restart.mjpeg
$FF -i ../people-576-high.mp4 -an -vf scale=80:45,scale=2560:1440 -frames:v 1 -pix_fmt yuvj420p -threads 1 -c:v mjpeg -huffman default -q:v 31 -f mjpeg wide.mjpeg

# Recordings as phones, editors, recorders and muxers write them: 30 pictures each where the table of the test does not
# say otherwise.
$FF $V -vf $SMALL $X264 -x264-params keyint=10:bframes=2 base.mp4
C="-i base.mp4 -c copy"
$FF $C -movflags +faststart faststart.mp4
$FF $C -movflags frag_keyframe+empty_moov+default_base_moof fragmented.mp4
$FF $C -movflags frag_every_frame+empty_moov fragmented-every.mp4
$FF $C -movflags frag_keyframe fragmented-hybrid.mp4
$FF $C -movflags +cmaf+delay_moov cmaf.mp4
$FF $C -movflags negative_cts_offsets negative-cts.mp4
$FF -ss 1.25 -i base.mp4 -c copy edit-list.mp4
$FF $V -vf "$SMALL,select='not(mod(n\,3))+lt(n\,10)'" -fps_mode vfr $X264 variable-rate.mp4
$FF -f lavfi -i sine=440:d=3 -i base.mp4 -map 0:a -map 1:v -c:v copy -c:a aac -b:a 32k sound-first.mp4
$FF $V -vf $SMALL $X265 -x265-params $QUIET:keyint=10 -tag:v hvc1 hvc1.mp4
$FF -i hvc1.mp4 -c copy -tag:v hev1 hev1.mp4
$FF $V -vf $SMALL $X264 -flags +ildct+ilme -x264-params tff=1 interlaced.mp4
$FF $V -vf $SMALL $X264 -x264-params keyint=10:intra-refresh=1:bframes=0 intra-refresh.mp4
$FF $V -vf $SMALL $X264 -x264-params keyint=10:min-keyint=1:scenecut=0:bframes=2:open-gop=1 open-gop.mp4
$FF $V -vf $SMALL -c:v libx264 -preset slow -crf 34 -threads 1 -pix_fmt yuv420p10le ten-bit.mp4
$FF $V -vf $SMALL -c:v mpeg4 -q:v 20 mpeg4.mp4
$FF $V -vf scale=160:120,fps=5 -c:v mjpeg -q:v 24 mjpeg.mp4
$FF $C base.mov
$FF $C base.mkv
$FF $C base.ts
$FF -i base.ts -c copy -tag:v avc3 avc3.mp4
$FF -i closed.h264 -c copy base.avi
$FF $V -vf scale=160:120,fps=5 -c:v libvpx -deadline realtime -b:v 50k vp8.webm
$FF -f lavfi -i sine=440:d=1 -c:a aac -b:a 32k sound-alone.mp4
