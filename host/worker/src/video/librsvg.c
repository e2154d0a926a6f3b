/* The stand-in for librsvg: all that libavcodec takes of it, from FFmpeg 5.1 to 8.
 *
 * Debian's libavcodec draws SVG, which no camera sends. The library that it draws with brings 18 others into each
 * process: 7 ms of its start, 1 MB of memory that no other process shares, and code that a stream might reach. The
 * loader takes this one instead where it lies in the folder `stand-ins` beside the programs, and the system's where it
 * does not. A picture in SVG is refused, as one that is damaged would be. */

/* Of GLib, which libavcodec brings as well: libavcodec frees the error. */
void *g_error_new_literal(unsigned domain, int code, const char *message) __attribute__((weak));

void *rsvg_handle_new_from_data(const void *data, unsigned long bytes, void **error)
{
    (void)data, (void)bytes;
    if (error && g_error_new_literal) *error = g_error_new_literal(1, 0, "SVG is not drawn here");
    return 0;
}

/* Nobody has a handle to call these with. */
void rsvg_handle_get_dimensions(void) {}
int rsvg_handle_get_intrinsic_size_in_pixels(void) { return 0; }
void rsvg_handle_set_dpi(void) {}
int rsvg_handle_render_cairo(void) { return 0; }
int rsvg_handle_render_document(void) { return 0; }
