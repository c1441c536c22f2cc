"""Small videos for the tests, written by OpenCV."""

import cv2
import numpy as np

RATE = 10.0


def write_video(path, count=12, *, images=None, size=(160, 120), codec="mp4v"):
    """Frames of rising grey, or the RGB `images`, at 10 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), RATE, size)
    assert writer.isOpened()
    grey = [np.full((size[1], size[0], 3), 20 * index, np.uint8) for index in range(count)]
    for image in grey if images is None else images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_frames(path):
    """Every frame of a video, RGB."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, image = capture.read()
        if not found:
            return frames
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
