"""The bundle fixture: a tiny good bundle with its checkpoint and images, and broken copies."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from builders import tiny_net, tiny_spec
from renderer.scenes import render_scene

from mbv3ssd_deploy.bundle.bundle import Bundle, read_bundle
from mbv3ssd_deploy.checkpoint.native_file import write_native
from mbv3ssd_deploy.data.images import write_image
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.param_text import render_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn, render_bin
from mbv3ssd_deploy.pipeline import export_checkpoint, lower_to_ncnn
from mbv3ssd_deploy.verification.verify import verify_bundle


@dataclass(frozen=True)
class BundleFolder:
    """A folder with a checkpoint, images, and the good bundle `deploy`."""

    folder: Path
    images: tuple[Path, ...]

    def good(self):
        return read_bundle(self.folder / "deploy")

    def copy(self, name):
        """A copy of the good bundle beside it, so that its path to the checkpoint holds."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder / "deploy", target)
        return read_bundle(target)

    def verify(self, bundle, *, limit=None, **options):
        options = {"device": "cpu"} | options
        return verify_bundle(bundle, self.images[:limit], **options)


def edit_layers(bundle, edit):
    """Rewrite the ncnn files; `edit` returns the changed layer, or None to remove it."""
    graph = read_ncnn(bundle.param_path, bundle.bin_path)
    edited = [edit(layer) for layer in graph.layers]
    graph = NcnnGraph(tuple(layer for layer in edited if layer is not None))
    bundle.param_path.write_text(render_param(graph))
    bundle.bin_path.write_bytes(render_bin(graph))


def with_contract(bundle, **changes):
    """The bundle with other fields in the detector of detector.json."""
    spec = replace(bundle.spec, **changes)
    return Bundle(bundle.directory, replace(bundle.manifest, detector=spec))


def build_bundle_folder(folder, **spec):
    """Write a tiny checkpoint, its bundle and images to `folder`; `spec` changes `tiny_spec`."""
    spec = tiny_spec(num_classes=4, **spec)
    write_native(folder / "tiny.pth", tiny_net(spec=spec), spec)
    export_checkpoint(folder / "tiny.pth", folder / "deploy")
    lower_to_ncnn(folder / "deploy")
    images = tuple(folder / f"scene{i}.png" for i in range(3))
    for index, path in enumerate(images):
        write_image(path, render_scene(index, width=160, height=120).image)
    return BundleFolder(folder, images)
