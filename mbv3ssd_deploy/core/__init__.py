"""What a detector is, in numpy and OpenCV only: spec, priors, boxes, NMS, detections, matching."""
