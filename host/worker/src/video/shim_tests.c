/* What tests need of libavutil: no program that is not a test takes this object out of its library. */

#include <string.h>

#include <libavutil/frame.h>
#include <libavutil/hwcontext.h>
#include <libavutil/pixdesc.h>

struct ocelli_picture;
void ocelli_describe(AVFrame *frame, struct ocelli_picture *picture);

/* The picture of `planar` as a device gives it out, in a format of luma and paired chroma, as deep or deeper. Returns
 * whether there is one. */
int ocelli_paired(const AVFrame *planar, const char *name, struct ocelli_picture *picture) {
    const AVPixFmtDescriptor *from = av_pix_fmt_desc_get(planar->format);
    AVFrame *frame = av_frame_alloc();
    if (!from || !frame)
        return 0;
    frame->format = av_get_pix_fmt(name);
    frame->width = planar->width;
    frame->height = planar->height;
    const AVPixFmtDescriptor *to = av_pix_fmt_desc_get(frame->format);
    if (!to || to->comp[0].depth < from->comp[0].depth || av_frame_get_buffer(frame, 0) < 0) {
        av_frame_free(&frame);
        return 0;
    }
    av_frame_copy_props(frame, planar);
    /* Lines are written by setting bits. */
    for (int i = 0; i < AV_NUM_DATA_POINTERS && frame->buf[i]; i++)
        memset(frame->buf[i]->data, 0, frame->buf[i]->size);
    uint16_t line[8192];
    for (int component = 0; component < 3; component++) {
        const int shift_x = component ? from->log2_chroma_w : 0, shift_y = component ? from->log2_chroma_h : 0;
        const int width = AV_CEIL_RSHIFT(frame->width, shift_x), height = AV_CEIL_RSHIFT(frame->height, shift_y);
        for (int y = 0; y < height; y++) {
            av_read_image_line(line, (const uint8_t **)planar->data, planar->linesize, from, 0, y, component, width, 0);
            for (int x = 0; x < width; x++)
                line[x] = (uint16_t)(line[x] << (to->comp[0].depth - from->comp[0].depth));
            av_write_image_line(line, frame->data, frame->linesize, to, 0, y, component, width);
        }
    }
    ocelli_describe(frame, picture);
    return 1;
}

/* A device of a kind that has no driver behind it: good for what is found out before the driver is asked. */
AVBufferRef *ocelli_device_without_driver(const char *kind) {
    return av_hwdevice_ctx_alloc(av_hwdevice_find_type_by_name(kind));
}
