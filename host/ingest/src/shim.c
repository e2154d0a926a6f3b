/* What the reader process needs of libavformat.
 *
 * Structures of FFmpeg change between major versions, so Rust sees none of them: only this file does, and it is
 * compiled against the headers of the library that it is linked with.
 *
 * No decoder is opened: what a stream is comes from its container, and its units are cut by libavcodec's parsers. */

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avstring.h>
#include <libavutil/error.h>
#include <libavutil/log.h>
#include <libavutil/mathematics.h>

/* The containers that files may be in: those of cameras, phones and recorders (mpeg and dhav are what recorders
 * export). None of them opens another file by name. */
static const char FORMATS[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,avi,mpeg,dhav,flv,h264,hevc,mjpeg";

/* What an RTSP session consists of. */
static const char RTSP_PROTOCOLS[] = "rtsp,rtp,rtcp,udp,tcp";

/* Bytes of a file that are read at once. */
enum { FILE_BUFFER = 64 << 10 };

/* Streams of a file that are looked at. A file of many is hostile. */
enum { MAX_STREAMS = 64 };

/* Packets that are read until a container without a list of its streams has shown a video stream: seconds of sound and
 * data. */
enum { MAX_PROBE_PACKETS = 4096 };

/* A receive buffer for a key picture of a 4K camera, which comes in one burst. */
static const char UDP_BUFFER[] = "4194304";

/* Mirrored in demuxer.rs. */
enum { OCELLI_H264 = 0, OCELLI_H265 = 1, OCELLI_MJPEG = 2, OCELLI_OTHER = 3 };
enum { OCELLI_KEY = 1, OCELLI_CORRUPT = 2, OCELLI_HIDDEN = 4 };

typedef void ocelli_log_line(int level, int of_container, const char *line);

struct ocelli_input {
    AVFormatContext *format;
    AVIOContext *io; /* of a file */
    AVPacket *packet;
    AVIOInterruptCB interrupt;
    int64_t position; /* in the file */
    int fd;
    int waiting; /* `packet` was read while its stream was looked for */
    int video;   /* index of the stream that is read; -1 before it is known */
};

/* The video stream. Mirrored in demuxer.rs. Pointers live as long as the input, and until its next read. */
struct ocelli_stream {
    const char *format;
    const char *codec_name;
    const uint8_t *extradata;
    size_t extradata_size;
    int64_t pictures;    /* -1 without an index of all pictures */
    int64_t duration_ns; /* -1 if not known */
    double frame_rate;   /* 0 if not known */
    int32_t codec;       /* OCELLI_H264 ... */
    int32_t width;       /* 0 if not known */
    int32_t height;
    int32_t matrix[9]; /* the display matrix, all 0 without one */
    int32_t untimed;   /* the container has no times */
    int32_t delayed;   /* a unit brings the clock time of the one after it */
    int32_t encrypted;
};

/* One unit. Mirrored in demuxer.rs. Pointers live until the next read; times that are not known are INT64_MIN. */
struct ocelli_unit {
    const uint8_t *data;
    const uint8_t *extradata; /* where the stream's has changed */
    size_t size;
    size_t extradata_size;
    int64_t pts_ns;
    int64_t dts_ns;
    int64_t clock_us; /* since 1970 */
    int32_t flags;    /* OCELLI_KEY | ... */
    int32_t encrypted;
};

static ocelli_log_line *log_line;

static void log_callback(void *context, int level, const char *format, va_list arguments) {
    char line[512];
    if (level > AV_LOG_INFO || !log_line)
        return;
    const AVClass *class = context ? *(const AVClass **)context : NULL;
    vsnprintf(line, sizeof line, format, arguments);
    log_line(level, class && !strcmp(class->class_name, "AVFormatContext"), line);
}

/* Gives each line of libav's log, down to the level "info", to `line` instead of standard error. */
void ocelli_ingest_log(ocelli_log_line *line) {
    log_line = line;
    av_log_set_callback(log_callback);
}

/* Writes what an AVERROR means to `text`. */
void ocelli_ingest_error(int error, char *text, size_t size) {
    if (av_strerror(error, text, size) < 0 && size > 0)
        text[0] = '\0';
}

void ocelli_ingest_close(struct ocelli_input *input) {
    if (!input)
        return;
    avformat_close_input(&input->format);
    if (input->io)
        av_freep(&input->io->buffer);
    avio_context_free(&input->io);
    av_packet_free(&input->packet);
    av_free(input);
}

static int read_file(void *opaque, uint8_t *buffer, int size) {
    struct ocelli_input *input = opaque;
    /* A demuxer that looks for something in a damaged file reads all of it. */
    if (input->interrupt.callback(input->interrupt.opaque))
        return AVERROR_EXIT;
    ssize_t length;
    do
        length = pread(input->fd, buffer, (size_t)size, input->position);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return AVERROR(errno);
    input->position += length;
    return length ? (int)length : AVERROR_EOF;
}

static int64_t seek_file(void *opaque, int64_t offset, int whence) {
    struct ocelli_input *input = opaque;
    struct stat status;
    switch (whence & ~AVSEEK_FORCE) {
    case AVSEEK_SIZE:
        return fstat(input->fd, &status) ? AVERROR(errno) : status.st_size;
    case SEEK_SET:
        break;
    case SEEK_CUR:
        offset = av_sat_add64(input->position, offset);
        break;
    default:
        return AVERROR(EINVAL);
    }
    if (offset < 0)
        return AVERROR(EINVAL);
    return input->position = offset;
}

/* Nothing is opened by name, whatever a file refers to. */
static int open_nothing(AVFormatContext *format, AVIOContext **opened, const char *url, int flags,
                        AVDictionary **options) {
    (void)format, (void)opened, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

static struct ocelli_input *allocate(int (*stop)(void *), void *watch) {
    struct ocelli_input *input = av_mallocz(sizeof *input);
    if (!input)
        return NULL;
    input->video = -1;
    input->fd = -1;
    input->interrupt = (AVIOInterruptCB){stop, watch};
    input->packet = av_packet_alloc();
    input->format = avformat_alloc_context();
    if (!input->packet || !input->format) {
        ocelli_ingest_close(input);
        return NULL;
    }
    input->format->interrupt_callback = input->interrupt;
    input->format->max_streams = MAX_STREAMS;
    return input;
}

/* Frees `input` where opening has failed: libavformat has then freed its own part. */
static int opened_or_closed(int result, struct ocelli_input *input, struct ocelli_input **opened) {
    if (result < 0)
        ocelli_ingest_close(input);
    else
        *opened = input;
    return result < 0 ? result : 0;
}

/* Opens the file behind `fd`, which stays the caller's. `raw` names the format of a stream without container that the
 * file is taken for if its content says nothing else; null if there is none. `stop` is asked before each read. Returns
 * 0 and an input to close with `ocelli_ingest_close`, or an AVERROR: AVERROR_DEMUXER_NOT_FOUND for a file in none of
 * the containers. */
int ocelli_ingest_open_file(int fd, const char *raw, int (*stop)(void *), void *watch, struct ocelli_input **opened) {
    struct ocelli_input *input = allocate(stop, watch);
    uint8_t *buffer = av_malloc(FILE_BUFFER);
    if (input && buffer)
        input->io = avio_alloc_context(buffer, FILE_BUFFER, 0, input, read_file, NULL, seek_file);
    if (!input || !input->io) {
        av_free(buffer);
        ocelli_ingest_close(input);
        return AVERROR(ENOMEM);
    }
    input->fd = fd;
    input->format->pb = input->io;
    /* Said here, because closing asks for it where nothing was opened. */
    input->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    input->format->io_open = open_nothing;
    input->format->protocol_whitelist = av_strdup("none");
    input->format->format_whitelist = av_strdup(FORMATS);
    const AVInputFormat *format = NULL;
    int score = av_probe_input_buffer2(input->io, &format, "", NULL, 0, 0);
    if (score == AVERROR(ENOMEM) || score == AVERROR_EXIT)
        return opened_or_closed(score, input, opened);
    if (score < 0 || !format || av_match_list(format->name, FORMATS, ',') <= 0)
        format = raw ? av_find_input_format(raw) : NULL;
    if (!format)
        return opened_or_closed(AVERROR_DEMUXER_NOT_FOUND, input, opened);
    return opened_or_closed(avformat_open_input(&input->format, "", format, NULL), input, opened);
}

/* Opens an `rtsp://` URL and asks for its video alone, in datagrams if `udp`. `stop` is asked all the time. Returns as
 * `ocelli_ingest_open_file`. */
int ocelli_ingest_open_camera(const char *url, int udp, const char *agent, int (*stop)(void *), void *watch,
                              struct ocelli_input **opened) {
    struct ocelli_input *input = allocate(stop, watch);
    if (!input)
        return AVERROR(ENOMEM);
    input->format->protocol_whitelist = av_strdup(RTSP_PROTOCOLS);
    input->format->format_whitelist = av_strdup("rtsp");
    input->format->io_open = open_nothing;
    AVDictionary *options = NULL;
    av_dict_set(&options, "rtsp_transport", udp ? "udp" : "tcp", 0);
    av_dict_set(&options, "allowed_media_types", "video", 0);
    av_dict_set(&options, "user_agent", agent, 0);
    av_dict_set(&options, "buffer_size", UDP_BUFFER, 0);
    int result = avformat_open_input(&input->format, url, av_find_input_format("rtsp"), &options);
    av_dict_free(&options);
    return opened_or_closed(result, input, opened);
}

static int32_t codec_of(const AVStream *stream) {
    switch (stream->codecpar->codec_id) {
    case AV_CODEC_ID_H264:
        return OCELLI_H264;
    case AV_CODEC_ID_HEVC:
        return OCELLI_H265;
    case AV_CODEC_ID_MJPEG:
        return OCELLI_MJPEG;
    default:
        return OCELLI_OTHER;
    }
}

/* Whether the first stream suits better: a codec that is decoded, then the file's own choice, then the larger one. */
static int is_better(const AVStream *stream, const AVStream *than) {
    const int known = codec_of(stream) != OCELLI_OTHER, other_known = codec_of(than) != OCELLI_OTHER;
    const int chosen = stream->disposition & AV_DISPOSITION_DEFAULT, other = than->disposition & AV_DISPOSITION_DEFAULT;
    if (known != other_known)
        return known;
    if (chosen != other)
        return chosen;
    return (int64_t)stream->codecpar->width * stream->codecpar->height >
           (int64_t)than->codecpar->width * than->codecpar->height;
}

/* The video stream that suits best; -1 without one. Pictures that stand for a file, like covers, are no video. */
static int best_video(const AVFormatContext *format) {
    int best = -1;
    for (unsigned i = 0; i < format->nb_streams; i++) {
        const AVStream *stream = format->streams[i];
        if (stream->codecpar->codec_type != AVMEDIA_TYPE_VIDEO || stream->codecpar->codec_id == AV_CODEC_ID_NONE ||
            (stream->disposition & AV_DISPOSITION_ATTACHED_PIC))
            continue;
        if (best < 0 || is_better(stream, format->streams[best]))
            best = (int)i;
    }
    return best;
}

/* Whether the codec of a stream is still to be found out from its packets. */
static int has_unknown_streams(const AVFormatContext *format) {
    for (unsigned i = 0; i < format->nb_streams; i++)
        if (format->streams[i]->codecpar->codec_id == AV_CODEC_ID_NONE)
            return 1;
    return (format->ctx_flags & AVFMTCTX_NOHEADER) != 0;
}

/* Finds the video stream, for which packets are read where the container has no list. The packet that shows it is not
 * lost. Returns 0, AVERROR_STREAM_NOT_FOUND, or what reading fails with. */
int ocelli_ingest_find_video(struct ocelli_input *input) {
    AVFormatContext *format = input->format;
    int best = best_video(format);
    for (int i = 0; best < 0 && has_unknown_streams(format) && i < MAX_PROBE_PACKETS; i++) {
        av_packet_unref(input->packet);
        int result = av_read_frame(format, input->packet);
        if (result == AVERROR_EOF)
            break;
        if (result < 0 && result != AVERROR(EAGAIN) && result != AVERROR_INVALIDDATA)
            return result;
        best = best_video(format);
        input->waiting = best >= 0 && result >= 0;
    }
    if (best < 0)
        return AVERROR_STREAM_NOT_FOUND;
    input->video = best;
    for (unsigned i = 0; i < format->nb_streams; i++)
        format->streams[i]->discard = (int)i == best ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    return 0;
}

static int64_t in_ns(int64_t time, AVRational base) {
    if (time == AV_NOPTS_VALUE)
        return INT64_MIN;
    return av_rescale_q(time, base, (AVRational){1, 1000000000});
}

/* The size of the pictures, by the parameter sets before or in the packet that waits. */
static void measure(const struct ocelli_input *input, const AVCodecParameters *codec, struct ocelli_stream *stream) {
    AVCodecParserContext *parser = av_parser_init(codec->codec_id);
    AVCodecContext *context = avcodec_alloc_context3(NULL);
    if (parser && context && avcodec_parameters_to_context(context, codec) >= 0) {
        uint8_t *data;
        int size;
        parser->flags |= PARSER_FLAG_COMPLETE_FRAMES;
        av_parser_parse2(parser, context, &data, &size, input->packet->data, input->packet->size, AV_NOPTS_VALUE,
                         AV_NOPTS_VALUE, 0);
        stream->width = parser->width;
        stream->height = parser->height;
    }
    av_parser_close(parser);
    avcodec_free_context(&context);
}

/* Describes the video stream that was found. A file's first packet is read for it. */
void ocelli_ingest_describe(struct ocelli_input *input, struct ocelli_stream *described) {
    AVFormatContext *format = input->format;
    const AVStream *stream = format->streams[input->video];
    const AVCodecParameters *codec = stream->codecpar;
    const int is_mov = av_match_name("mov", format->iformat->name);
    const int is_rtsp = av_match_name("rtsp", format->iformat->name);
    memset(described, 0, sizeof *described);
    described->format = format->iformat->name;
    described->codec = codec_of(stream);
    described->codec_name = avcodec_get_name(codec->codec_id);
    described->extradata = codec->extradata;
    described->extradata_size = codec->extradata_size > 0 ? (size_t)codec->extradata_size : 0;
    /* The index of a fragmented file grows while it is read. */
    described->pictures = is_mov && stream->nb_frames > 0 ? avformat_index_get_entries_count(stream) : -1;
    described->duration_ns = -1;
    if (stream->duration != AV_NOPTS_VALUE && stream->duration > 0)
        described->duration_ns = in_ns(stream->duration, stream->time_base);
    else if (format->duration != AV_NOPTS_VALUE && format->duration > 0)
        described->duration_ns = in_ns(format->duration, AV_TIME_BASE_Q);
    if (stream->avg_frame_rate.num > 0 && stream->avg_frame_rate.den > 0)
        described->frame_rate = av_q2d(stream->avg_frame_rate);
    described->width = codec->width;
    described->height = codec->height;
    if (!codec->width && !is_rtsp) {
        if (!input->waiting)
            input->waiting = av_read_frame(format, input->packet) >= 0;
        if (input->waiting && input->packet->stream_index == input->video)
            measure(input, codec, described);
    }
    size_t size = 0;
    const uint8_t *matrix = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (matrix && size >= sizeof described->matrix)
        memcpy(described->matrix, matrix, sizeof described->matrix);
    described->untimed = (format->iformat->flags & AVFMT_NOTIMESTAMPS) != 0;
    /* The parser gives out a unit when the next one begins, with what came with the next one's first packet. */
    described->delayed = is_rtsp && described->codec != OCELLI_MJPEG;
    described->encrypted = av_stream_get_side_data(stream, AV_PKT_DATA_ENCRYPTION_INIT_INFO, NULL) != NULL;
}

/* Writes what stream `index` is, in two words, to `text`. Returns whether it is left out; -1 behind the last stream. */
int ocelli_ingest_left_out(const struct ocelli_input *input, unsigned index, char *text, size_t size) {
    if (index >= input->format->nb_streams)
        return -1;
    const AVCodecParameters *codec = input->format->streams[index]->codecpar;
    const char *kind = av_get_media_type_string(codec->codec_type);
    snprintf(text, size, "%s %s", kind ? kind : "unknown", avcodec_get_name(codec->codec_id));
    return (int)index != input->video;
}

/* Reads the next unit of the video stream. Returns 0 or an AVERROR, after which reading may go on. */
int ocelli_ingest_read(struct ocelli_input *input, struct ocelli_unit *unit) {
    AVPacket *packet = input->packet;
    do {
        if (!input->waiting) {
            av_packet_unref(packet);
            int result = av_read_frame(input->format, packet);
            if (result < 0)
                return result;
        }
        input->waiting = 0;
    } while (packet->stream_index != input->video);
    const AVStream *stream = input->format->streams[input->video];
    size_t size = 0;
    memset(unit, 0, sizeof *unit);
    unit->data = packet->data;
    unit->size = packet->data && packet->size > 0 ? (size_t)packet->size : 0;
    unit->pts_ns = in_ns(packet->pts, stream->time_base);
    unit->dts_ns = in_ns(packet->dts, stream->time_base);
    unit->flags = (packet->flags & AV_PKT_FLAG_KEY ? OCELLI_KEY : 0) |
                  (packet->flags & AV_PKT_FLAG_CORRUPT ? OCELLI_CORRUPT : 0) |
                  (packet->flags & AV_PKT_FLAG_DISCARD ? OCELLI_HIDDEN : 0);
    unit->extradata = av_packet_get_side_data(packet, AV_PKT_DATA_NEW_EXTRADATA, &unit->extradata_size);
    const uint8_t *clock = av_packet_get_side_data(packet, AV_PKT_DATA_PRFT, &size);
    unit->clock_us = INT64_MIN;
    if (clock && size >= sizeof(AVProducerReferenceTime))
        unit->clock_us = ((const AVProducerReferenceTime *)clock)->wallclock;
    unit->encrypted = av_packet_get_side_data(packet, AV_PKT_DATA_ENCRYPTION_INFO, NULL) != NULL;
    return 0;
}
