/* The header is C, and no null pointer does harm. */
#include "mbv3ssd/c_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

int main(void) {
    mbv3ssd_detector* detector = (mbv3ssd_detector*)1;
    mbv3ssd_description description;
    mbv3ssd_detection detection;
    mbv3ssd_head head;
    mbv3ssd_image image;
    float number = 0;
    size_t count = 7;
    memset(&head, 0, sizeof head);
    memset(&image, 0, sizeof image);

    CHECK(mbv3ssd_api_version() == MBV3SSD_API_VERSION);
    CHECK(strcmp(mbv3ssd_version(), "0.1.0") == 0);
    CHECK(mbv3ssd_last_error()[0] == '\0');

    CHECK(mbv3ssd_open("nowhere/none.mbv3c", &detector) == MBV3SSD_CANNOT_READ);
    CHECK(detector == NULL);
    CHECK(strstr(mbv3ssd_last_error(), "cannot be opened") != NULL);
    CHECK(mbv3ssd_open(NULL, &detector) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_open("x", NULL) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_open_memory(NULL, 3, &detector) == MBV3SSD_BAD_CONTRACT);
    CHECK(mbv3ssd_open_memory("x", 1, NULL) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_open_memory("x", 1, &detector) == MBV3SSD_BAD_CONTRACT);
    mbv3ssd_close(NULL);

    CHECK(mbv3ssd_describe(NULL, &description) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_class_name(NULL, 0) == NULL);
    CHECK(mbv3ssd_get_priors(NULL, &number, 1) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_set_priors(NULL, &number, 1) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_set_thresholds(NULL, 0.5, 0.5) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_set_head_form(NULL, 0, 0) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_set_clip(NULL, 1) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_preprocess(NULL, &image, &number, 1) == MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_postprocess(NULL, &head, 1, 1, 1, &detection, 1, &count) ==
          MBV3SSD_BAD_ARGUMENT);
    CHECK(mbv3ssd_read_detection_out(NULL, &number, 1, 6, 1, 1, &detection, 1, &count) ==
          MBV3SSD_BAD_ARGUMENT);
    CHECK(strcmp(mbv3ssd_last_error(), "a pointer is null") == 0);
    return 0;
}
