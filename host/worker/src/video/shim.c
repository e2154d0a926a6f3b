/* What the decoder needs of libavcodec and libavutil.
 *
 * Structures of FFmpeg change between major versions, so Rust sees none of them: only this file does, and it is
 * compiled against the headers of the library that it is linked with. Everything used here is the same from
 * FFmpeg 5.1 to 8. */

#include <limits.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/error.h>
#include <libavutil/frame.h>
#include <libavutil/hwcontext.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>

/* What `ocelli_receive` and `ocelli_send` return besides an AVERROR. Mirrored in decoder.rs. */
enum { OCELLI_NOTHING = 0, OCELLI_PICTURE = 1 };

/* Horizontal and vertical places of a chroma sample that Rust tells apart. Mirrored in picture.rs. */
enum { OCELLI_CHROMA_LEFT = 0, OCELLI_CHROMA_CENTRE = 1, OCELLI_CHROMA_TOP_LEFT = 2 };

/* Why `ocelli_open` has no decoder on a device. Mirrored in decoder.rs; no AVERROR is positive. */
enum { OCELLI_CODEC_NOT_ON_DEVICE = 1 };

struct ocelli_decoder {
    AVCodecContext *context;
    AVPacket *packet;
    AVFrame *frame;
    enum AVPixelFormat device_format; /* of pictures that lie on a device; none for the processor */
    int refused;                      /* the device does not decode this stream */
};

/* A decoded picture as Rust sees it. Mirrored in picture.rs. */
struct ocelli_picture {
    AVFrame *frame;         /* owned by whoever holds this structure */
    const uint8_t *data[3]; /* null for planes that the format lacks */
    int64_t unit;           /* what `ocelli_send` was given with the access unit */
    const char *format;     /* libavutil's name of the pixel format; lives for ever */
    int32_t stride[3];      /* bytes */
    int32_t width;          /* pixels */
    int32_t height;
    int32_t planes;         /* 1 or 3; 2: both chroma in one, by turns; 0 where Rust cannot read it */
    int32_t depth;          /* bits of a sample; above 8 a sample takes two little-endian bytes */
    int32_t chroma_shift_x; /* log2 of luma samples for each chroma sample */
    int32_t chroma_shift_y;
    int32_t chroma_place;   /* OCELLI_CHROMA_... */
    int32_t matrix;         /* matrix coefficients by ITU-T H.273 */
    int32_t full_range;     /* samples span the whole range of their type */
    int32_t damaged;        /* the decoder says that the picture is not what the encoder saw */
};

/* Turns off libavcodec's own log: it writes to standard error, and what it says comes from the camera. */
void ocelli_quiet(void) { av_log_set_level(AV_LOG_QUIET); }

/* Writes what an AVERROR means to `text`. */
void ocelli_error_text(int error, char *text, size_t size) {
    if (av_strerror(error, text, size) < 0 && size > 0)
        text[0] = '\0';
}

void ocelli_close(struct ocelli_decoder *decoder) {
    if (!decoder)
        return;
    avcodec_free_context(&decoder->context);
    av_packet_free(&decoder->packet);
    av_frame_free(&decoder->frame);
    av_free(decoder);
}

/* Whether this FFmpeg knows devices of a kind, by libavutil's name of it. */
int ocelli_has_device_kind(const char *kind) {
    const enum AVHWDeviceType wanted = av_hwdevice_find_type_by_name(kind);
    enum AVHWDeviceType built = AV_HWDEVICE_TYPE_NONE;
    while ((built = av_hwdevice_iterate_types(built)) != AV_HWDEVICE_TYPE_NONE)
        if (built == wanted)
            return 1;
    return 0;
}

/* Opens a device, which loads its driver. Returns 0 and a device to close with `ocelli_close_device`, or an AVERROR. */
int ocelli_open_device(const char *kind, const char *name, AVBufferRef **opened) {
    return av_hwdevice_ctx_create(opened, av_hwdevice_find_type_by_name(kind), name, NULL, 0);
}

void ocelli_close_device(AVBufferRef *device) { av_buffer_unref(&device); }

/* Chooses the device's pictures among those that the stream may be decoded to. The device is no more among them once
 * its driver has said that it does not decode the stream; the processor is not taken in its place. */
static enum AVPixelFormat on_device(AVCodecContext *context, const enum AVPixelFormat *formats) {
    struct ocelli_decoder *decoder = context->opaque;
    for (; *formats != AV_PIX_FMT_NONE; formats++)
        if (*formats == decoder->device_format)
            return *formats;
    decoder->refused = 1;
    return AV_PIX_FMT_NONE;
}

/* Has a decoder work on a device. */
static int use_device(struct ocelli_decoder *decoder, const AVCodec *codec, AVBufferRef *device) {
    const enum AVHWDeviceType type = ((const AVHWDeviceContext *)device->data)->type;
    const AVCodecHWConfig *config;
    for (int i = 0; (config = avcodec_get_hw_config(codec, i)); i++)
        if (config->device_type == type && (config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX))
            break;
    if (!config)
        return OCELLI_CODEC_NOT_ON_DEVICE;
    decoder->device_format = config->pix_fmt;
    decoder->context->opaque = decoder;
    decoder->context->get_format = on_device;
    decoder->context->hw_device_ctx = av_buffer_ref(device);
    return decoder->context->hw_device_ctx ? 0 : AVERROR(ENOMEM);
}

/* Opens the decoder that libavcodec calls `name`, on a device unless that is null. Pictures of more than `max_pixels`
 * are refused before memory is taken for them. Returns 0 and a decoder to close with `ocelli_close`, or an AVERROR, or
 * OCELLI_CODEC_NOT_ON_DEVICE. */
int ocelli_open(const char *name, int64_t max_pixels, AVBufferRef *device, struct ocelli_decoder **opened) {
    const AVCodec *codec = avcodec_find_decoder_by_name(name);
    if (!codec)
        return AVERROR_DECODER_NOT_FOUND;
    struct ocelli_decoder *decoder = av_mallocz(sizeof *decoder);
    if (!decoder)
        return AVERROR(ENOMEM);
    decoder->context = avcodec_alloc_context3(codec);
    decoder->packet = av_packet_alloc();
    decoder->frame = av_frame_alloc();
    if (!decoder->context || !decoder->packet || !decoder->frame) {
        ocelli_close(decoder);
        return AVERROR(ENOMEM);
    }
    /* Many cameras share the machine: threads in each decoder would add delay and memory, and no throughput. */
    decoder->context->thread_count = 1;
    decoder->context->max_pixels = max_pixels;
    decoder->device_format = AV_PIX_FMT_NONE;
    int result = device ? use_device(decoder, codec, device) : 0;
    if (result == 0)
        result = avcodec_open2(decoder->context, codec, NULL);
    if (result != 0) {
        ocelli_close(decoder);
        return result;
    }
    *opened = decoder;
    return 0;
}

/* Gives an access unit to the decoder; no data at all begins a drain. `unit` comes back with its picture: it takes the
 * place of the time stamp, which the decoder carries along and does not look at. Returns 0 or an AVERROR. */
int ocelli_send(struct ocelli_decoder *decoder, const uint8_t *data, size_t size, int64_t unit) {
    if (!data)
        return avcodec_send_packet(decoder->context, NULL);
    if (size == 0 || size > INT_MAX - AV_INPUT_BUFFER_PADDING_SIZE)
        return AVERROR_INVALIDDATA;
    /* The decoder reads beyond the end, so the bytes go to a buffer of its own with zeroed padding. */
    int result = av_new_packet(decoder->packet, (int)size);
    if (result < 0)
        return result;
    memcpy(decoder->packet->data, data, size);
    decoder->packet->pts = unit;
    decoder->packet->dts = unit;
    result = avcodec_send_packet(decoder->context, decoder->packet);
    av_packet_unref(decoder->packet);
    return result;
}

/* Whether the device has refused to decode the stream. */
int ocelli_refused(const struct ocelli_decoder *decoder) { return decoder->refused; }

/* Whether both chroma lie in one plane, sample by sample, blue first: what devices give out. */
static int is_paired(const AVPixFmtDescriptor *format) {
    return format->nb_components == 3 && format->comp[1].plane == 1 && format->comp[2].plane == 1;
}

/* Whether samples of `frame` lie as Rust reads them: one or three planes, or luma and paired chroma, 8 to 12 bits,
 * whole bytes, rows downwards. */
static int readable(const AVFrame *frame, const AVPixFmtDescriptor *format) {
    const uint64_t other = AV_PIX_FMT_FLAG_BE | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM |
                           AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_ALPHA |
                           AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_FLOAT;
    if (!format || (format->flags & other) || (format->nb_components != 1 && format->nb_components != 3))
        return 0;
    for (int i = 0; i < format->nb_components; i++) {
        const AVComponentDescriptor *component = &format->comp[i];
        const int bytes = component->depth > 8 ? 2 : 1;
        const int paired = i > 0 && is_paired(format);
        const int plane = paired ? 1 : i;
        const int step = paired ? 2 * bytes : bytes;
        const int offset = paired && i == 2 ? bytes : 0;
        const int width = i == 0 ? frame->width : AV_CEIL_RSHIFT(frame->width, format->log2_chroma_w);
        if (component->plane != plane || component->offset != offset || component->step != step ||
            component->depth < 8 || component->depth > 12 || component->depth != format->comp[0].depth)
            return 0;
        /* Bits at the upper end of two bytes are moved down where nobody else has the samples. */
        if (component->shift && (bytes == 1 || component->shift != 16 - component->depth || !is_paired(format)))
            return 0;
        if (!frame->data[plane] || frame->linesize[plane] / step < width)
            return 0;
    }
    return frame->width > 0 && frame->height > 0;
}

static int is_jpeg_format(enum AVPixelFormat format) {
    return format == AV_PIX_FMT_YUVJ420P || format == AV_PIX_FMT_YUVJ422P || format == AV_PIX_FMT_YUVJ444P ||
           format == AV_PIX_FMT_YUVJ440P;
}

/* Moves samples of more than 8 bits from the upper end of their two bytes to the lower. Returns whether it could. */
static int lower(AVFrame *frame, const AVPixFmtDescriptor *format) {
    const int shift = format->comp[0].shift;
    if (!shift)
        return 1;
    if (av_frame_make_writable(frame) < 0)
        return 0;
    for (int plane = 0; plane < 2; plane++) {
        const int width = plane == 0 ? frame->width : 2 * AV_CEIL_RSHIFT(frame->width, format->log2_chroma_w);
        const int height = plane == 0 ? frame->height : AV_CEIL_RSHIFT(frame->height, format->log2_chroma_h);
        for (int y = 0; y < height; y++) {
            uint16_t *row = (uint16_t *)(frame->data[plane] + (ptrdiff_t)y * frame->linesize[plane]);
            for (int x = 0; x < width; x++)
                row[x] = (uint16_t)(row[x] >> shift);
        }
    }
    return 1;
}

void ocelli_describe(AVFrame *frame, struct ocelli_picture *picture) {
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(frame->format);
    const int jpeg = is_jpeg_format(frame->format);
    memset(picture, 0, sizeof *picture);
    picture->frame = frame;
    picture->unit = frame->pts;
    picture->format = format ? format->name : "unknown";
    picture->width = frame->width;
    picture->height = frame->height;
    picture->matrix = frame->colorspace;
    picture->full_range = jpeg || frame->color_range == AVCOL_RANGE_JPEG;
    picture->damaged = frame->decode_error_flags != 0 || (frame->flags & AV_FRAME_FLAG_CORRUPT) != 0;
    switch (frame->chroma_location) {
    case AVCHROMA_LOC_CENTER:
        picture->chroma_place = OCELLI_CHROMA_CENTRE;
        break;
    case AVCHROMA_LOC_TOPLEFT:
        picture->chroma_place = OCELLI_CHROMA_TOP_LEFT;
        break;
    case AVCHROMA_LOC_UNSPECIFIED:
        picture->chroma_place = jpeg ? OCELLI_CHROMA_CENTRE : OCELLI_CHROMA_LEFT;
        break;
    default:
        picture->chroma_place = OCELLI_CHROMA_LEFT;
        break;
    }
    if (!readable(frame, format) || !lower(frame, format))
        return;
    picture->planes = is_paired(format) ? 2 : format->nb_components;
    picture->depth = format->comp[0].depth;
    picture->chroma_shift_x = format->log2_chroma_w;
    picture->chroma_shift_y = format->log2_chroma_h;
    for (int i = 0; i < picture->planes; i++) {
        picture->data[i] = frame->data[i];
        picture->stride[i] = frame->linesize[i];
    }
}

/* Brings a picture that lies on a device to memory. Its pixels are copied; the device has its own back at once. */
static int to_memory(const struct ocelli_decoder *decoder, AVFrame *frame) {
    if (decoder->device_format == AV_PIX_FMT_NONE || frame->format != decoder->device_format)
        return 0;
    AVFrame *copy = av_frame_alloc();
    if (!copy)
        return AVERROR(ENOMEM);
    int result = av_hwframe_transfer_data(copy, frame, 0);
    if (result >= 0)
        result = av_frame_copy_props(copy, frame);
    /* libavcodec leaves what is cut off at the left and the top to whoever has the pixels. */
    if (result >= 0)
        result = av_frame_apply_cropping(copy, 0);
    if (result >= 0) {
        av_frame_unref(frame);
        av_frame_move_ref(frame, copy);
    }
    av_frame_free(&copy);
    return result;
}

/* Takes the next picture out of the decoder, without copying pixels in memory. Returns OCELLI_PICTURE and a picture whose frame
 * goes to `ocelli_free_frame`, OCELLI_NOTHING where the decoder wants more access units or is drained, or an AVERROR. */
int ocelli_receive(struct ocelli_decoder *decoder, struct ocelli_picture *picture) {
    int result = avcodec_receive_frame(decoder->context, decoder->frame);
    if (result == AVERROR(EAGAIN) || result == AVERROR_EOF)
        return OCELLI_NOTHING;
    if (result < 0)
        return result;
    result = to_memory(decoder, decoder->frame);
    AVFrame *frame = result < 0 ? NULL : av_frame_alloc();
    if (!frame) {
        av_frame_unref(decoder->frame);
        return result < 0 ? result : AVERROR(ENOMEM);
    }
    av_frame_move_ref(frame, decoder->frame);
    ocelli_describe(frame, picture);
    return OCELLI_PICTURE;
}

/* Forgets all that the decoder holds; afterwards it takes a key access unit. Ends a drain. */
void ocelli_flush(struct ocelli_decoder *decoder) { avcodec_flush_buffers(decoder->context); }

/* A picture may outlive its decoder and be freed on another thread: its buffers count references atomically. */
void ocelli_free_frame(AVFrame *frame) { av_frame_free(&frame); }
