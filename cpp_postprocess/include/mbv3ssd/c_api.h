/* The library for C, and for languages that can call C.
 *
 * Once: mbv3ssd_open, mbv3ssd_describe. For each image: mbv3ssd_preprocess, your engine,
 * mbv3ssd_postprocess (or mbv3ssd_read_detection_out if the network ends in ncnn's
 * DetectionOutput). At the end: mbv3ssd_close.
 *
 * Every function that can fail returns a status and sets the text of mbv3ssd_last_error(). It never
 * throws. A detector holds buffers: use one per thread. After the first image nothing is allocated,
 * as long as images keep their size and detection_out has at most max_detections rows. Arguments are
 * only read, and only during the call: the caller keeps ownership. */
#ifndef MBV3SSD_C_API_H
#define MBV3SSD_C_API_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(MBV3SSD_SHARED)
#if defined(MBV3SSD_BUILDING)
#define MBV3SSD_API __declspec(dllexport)
#else
#define MBV3SSD_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define MBV3SSD_API __attribute__((visibility("default")))
#else
#define MBV3SSD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by incompatible changes of the functions and structs below. A program that loads the
 * library at run time compares it with mbv3ssd_api_version(). */
#define MBV3SSD_API_VERSION 1

typedef enum mbv3ssd_status {
    MBV3SSD_OK = 0,
    MBV3SSD_BAD_ARGUMENT = 1,     /* a null pointer, a size that does not fit, ... */
    MBV3SSD_BAD_CONTRACT = 2,     /* no contract, a damaged one, one that contradicts itself */
    MBV3SSD_OTHER_VERSION = 3,    /* a contract of a version that this library does not read */
    MBV3SSD_CANNOT_READ = 4,      /* the file is not there or cannot be read */
    MBV3SSD_BUFFER_TOO_SMALL = 5, /* there is more to return than there is room */
    MBV3SSD_OUT_OF_MEMORY = 6,
    MBV3SSD_BUG = 7               /* ours */
} mbv3ssd_status;

/* One model's rules and the buffers for one image at a time. */
typedef struct mbv3ssd_detector mbv3ssd_detector;

typedef struct mbv3ssd_description {
    uint32_t input_width, input_height; /* of the network, in pixels; see mbv3ssd_preprocess */
    uint32_t class_count;               /* the background counted */
    uint32_t prior_count;
    uint32_t level_count;               /* feature maps that have priors */
    uint32_t max_detections;            /* the most that mbv3ssd_postprocess can give */
    uint32_t lanes;                     /* 2: AVX2, 1: SSE2 or NEON, 0: plain C++ */
} mbv3ssd_description;

/* 8 bits per channel. GREY is one channel; NV21 is the format of Android's cameras. */
typedef enum mbv3ssd_pixels {
    MBV3SSD_RGB = 0,
    MBV3SSD_BGR = 1,
    MBV3SSD_RGBA = 2,
    MBV3SSD_BGRA = 3,
    MBV3SSD_GREY = 4,
    MBV3SSD_NV21 = 5
} mbv3ssd_pixels;

/* Row 0 is the top one. Strides are bytes from a row to the next; 0: rows without padding. For
 * NV21, `pixels` are the rows of Y, and `chroma` half as many rows (rounded up) of V and U in turn,
 * a pair for 2 x 2 pixels; often it is pixels + stride * height. Other formats leave it NULL. */
typedef struct mbv3ssd_image {
    const uint8_t* pixels;
    uint32_t width, height;
    uint32_t format; /* mbv3ssd_pixels */
    size_t stride;
    const uint8_t* chroma;
    size_t chroma_stride;
} mbv3ssd_image;

/* Raw heads: one part for each level, in the model's order, or, in rows, one for all.
 * ROWS:   loc (priors, 4) and conf (priors, classes), dense, priors in the order of
 *         mbv3ssd_get_priors. Sizes must be exact: 4 * priors and classes * priors floats. The
 *         steps are ignored.
 * PLANES: loc (4 A, rows, cols) and conf (classes A, rows, cols) for A boxes per cell: planes
 *         4 * box + i and classes * box + label, as ncnn's `--raw-heads=levels` gives them. The
 *         steps are floats from a plane to the next (cstep of an ncnn::Mat; 0: they are dense).
 *         Sizes are the floats that may be read: at least step * (planes - 1) + rows * cols. */
typedef enum mbv3ssd_layout { MBV3SSD_ROWS = 0, MBV3SSD_PLANES = 1 } mbv3ssd_layout;

typedef struct mbv3ssd_head {
    const float* loc;
    const float* conf;
    size_t loc_size, conf_size;
    uint32_t layout; /* mbv3ssd_layout */
    size_t loc_plane_step, conf_plane_step;
} mbv3ssd_head;

/* conf: before the softmax, or after it.
 * loc: offsets from the priors, or boxes already decoded (x_min, y_min, x_max, y_max in 0..1). */
typedef enum mbv3ssd_conf { MBV3SSD_LOGITS = 0, MBV3SSD_PROBABILITIES = 1 } mbv3ssd_conf;
typedef enum mbv3ssd_loc { MBV3SSD_OFFSETS = 0, MBV3SSD_CORNERS = 1 } mbv3ssd_loc;

typedef struct mbv3ssd_detection {
    float x_min, y_min, x_max, y_max; /* pixels of the image; may lie outside: mbv3ssd_set_clip */
    float score;                      /* 0..1 */
    int32_t label; /* 1 or more: 0 is the background */
    int32_t prior; /* the box's place among the priors; -1 from mbv3ssd_read_detection_out */
} mbv3ssd_detection;

MBV3SSD_API uint32_t mbv3ssd_api_version(void);

/* The library's release: "0.1.0". */
MBV3SSD_API const char* mbv3ssd_version(void);

/* The last error of this thread; "" if there was none. A success does not clear it: check the
 * status first. Valid until the next error in this thread. */
MBV3SSD_API const char* mbv3ssd_last_error(void);

/* Makes a detector from a contract, a file that `mbv3ssd-deploy contract` wrote, or from its bytes,
 * such as the array of `mbv3ssd-deploy contract --header`; neither is needed afterwards. On an
 * error, *detector is NULL. */
MBV3SSD_API mbv3ssd_status mbv3ssd_open(const char* path, mbv3ssd_detector** detector);
MBV3SSD_API mbv3ssd_status mbv3ssd_open_memory(const void* contract, size_t size,
                                               mbv3ssd_detector** detector);

/* Frees the detector. NULL is allowed. */
MBV3SSD_API void mbv3ssd_close(mbv3ssd_detector* detector);

/* Fills *description: the sizes that buffers must have. */
MBV3SSD_API mbv3ssd_status mbv3ssd_describe(const mbv3ssd_detector* detector,
                                            mbv3ssd_description* description);

/* The name of a class in UTF-8, valid as long as the detector; NULL if there is no such label. */
MBV3SSD_API const char* mbv3ssd_class_name(const mbv3ssd_detector* detector, int32_t label);

/* Copies all priors, or replaces them by those that the engine computed. `priors` is (count, 4):
 * centre x, centre y, width, height, in 0..1 of the image; `count` must be prior_count. */
MBV3SSD_API mbv3ssd_status mbv3ssd_get_priors(const mbv3ssd_detector* detector, float* priors,
                                              size_t count);
MBV3SSD_API mbv3ssd_status mbv3ssd_set_priors(mbv3ssd_detector* detector, const float* priors,
                                              size_t count);

/* Replaces the contract's thresholds for the following images: the score that a detection must
 * exceed, and the IoU above which the worse of two boxes is dropped. Both within 0..1. They have no
 * effect on mbv3ssd_read_detection_out, where the network has applied its own. */
MBV3SSD_API mbv3ssd_status mbv3ssd_set_thresholds(mbv3ssd_detector* detector, double score,
                                                  double iou);

/* The form of the heads, as an mbv3ssd_conf and an mbv3ssd_loc; logits and offsets by
 * default. */
MBV3SSD_API mbv3ssd_status mbv3ssd_set_head_form(mbv3ssd_detector* detector, uint32_t conf,
                                                 uint32_t loc);

/* Whether boxes are clipped to the image; by default they are not. */
MBV3SSD_API mbv3ssd_status mbv3ssd_set_clip(mbv3ssd_detector* detector, int clip);

/* Resizes an image of any size (up to 32768 a side) to the network's input and normalises it. Fills
 * `tensor`, (3, input_height, input_width), planes in the order that the network was trained on,
 * whatever the image's own; `size` is the number of floats, 3 * input_height * input_width. */
MBV3SSD_API mbv3ssd_status mbv3ssd_preprocess(mbv3ssd_detector* detector,
                                              const mbv3ssd_image* image, float* tensor,
                                              size_t size);

/* Turns heads into detections in pixels of an image of that size (1 x 1: normalised), by the rules
 * and in the order of the contract. `heads` are `head_count` parts: 1, or level_count. Writes at
 * most `room` detections, and their total to *count: if that is more, the first `room` are written
 * and the status is MBV3SSD_BUFFER_TOO_SMALL. A `room` of max_detections always suffices. */
MBV3SSD_API mbv3ssd_status mbv3ssd_postprocess(mbv3ssd_detector* detector,
                                               const mbv3ssd_head* heads, size_t head_count,
                                               float image_width, float image_height,
                                               mbv3ssd_detection* detections, size_t room,
                                               size_t* count);

/* The same for ncnn's `detection_out`: `rows` of 6 floats (label, score, corners in 0..1), `step`
 * floats apart. For an ncnn::Mat these are data, h and w; an empty one (no rows, data may be NULL)
 * gives none. A `room` of `rows` always suffices. */
MBV3SSD_API mbv3ssd_status mbv3ssd_read_detection_out(mbv3ssd_detector* detector,
                                                      const float* data, size_t rows, size_t step,
                                                      float image_width, float image_height,
                                                      mbv3ssd_detection* detections, size_t room,
                                                      size_t* count);

#ifdef __cplusplus
}
#endif

#endif
