"""A tiny bundle through the example programs, natively or under emulation, against Python."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bundle_folder import BundleFolder

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.core.detections import detections_from_heads, scaled
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.device.contract import render_contract
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_rows
from mbv3ssd_deploy.pipeline import lower_to_ncnn
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel


@dataclass(frozen=True)
class Place:
    """A bundle, one image of it, and `run_program(name, *words)`, which returns its output."""

    bench: BundleFolder
    run_program: Callable[..., str]

    @property
    def bundle(self):
        return self.bench.good()

    @property
    def image(self):
        return self.bench.images[0]

    def with_outputs(self, outputs):
        """A bundle whose network ends otherwise."""
        directory = self.bench.copy(outputs).directory
        lower_to_ncnn(directory, NcnnRequest(outputs=outputs))
        return read_bundle(directory)

    def run(self, program, *, bundle=None, arithmetic="fp32"):
        """The lines that an example with ncnn prints, in words."""
        bundle = self.bundle if bundle is None else bundle
        network = bundle.param_path, bundle.bin_path
        return self.lines(program, *network, *self.contract_and_picture(bundle), arithmetic)

    def lines(self, program, *words):
        """The lines that a program prints, in words."""
        output = self.run_program(program, *map(str, words))
        return [line.split() for line in output.splitlines()]

    def contract_and_picture(self, bundle):
        """The files that every example needs, besides the network."""
        contract, picture = bundle.directory / "model.mbv3c", bundle.directory / "image.ppm"
        contract.write_bytes(render_contract(bundle.spec))
        image = read_image(self.image)
        height, width = image.shape[:2]
        picture.write_bytes(b"P6\n# a scene\n%d %d\n255\n" % (width, height) + image.tobytes())
        return contract, picture

    def runtime(self, bundle):
        return NcnnModel(bundle.param_path, bundle.bin_path, exact=True)

    def input(self):
        return input_from_image(read_image(self.image), self.bundle.spec.input)[None]

    def found_by_python(self):
        """Detections of the whole network."""
        (blobs,) = self.runtime(self.bundle).run_blobs(self.input(), ("detection_out",))
        return detections_from_rows(blobs["detection_out"])

    def found_from_heads(self, bundle):
        """Detections by the family's own rules."""
        heads = self.runtime(bundle).run(self.input()).tensors
        return detections_from_heads(heads["loc"][0], heads["conf"][0], bundle.spec)

    def assert_same(self, lines, expected):
        spec = self.bundle.spec
        height, width = read_image(self.image).shape[:2]
        expected = scaled(expected, width, height)
        assert len(expected) > 5
        assert len(lines) == len(expected)
        names = np.array([spec.class_names.index(name) for name, *_ in lines])
        numbers = np.array([[float(word) for word in words] for _, *words in lines])
        for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
            same = numbers[names == label]
            off = np.abs(same - np.array([score, *box])) / (1, width, height, width, height)
            assert off.max(axis=1).min() < 1e-4
