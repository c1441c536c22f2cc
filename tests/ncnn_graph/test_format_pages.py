"""The pages about ncnn's files say what the code does."""

import re
from pathlib import Path

from mbv3ssd_deploy.ncnn_graph.graph import Storage
from mbv3ssd_deploy.ncnn_graph.layers import LAYERS
from mbv3ssd_deploy.ncnn_graph.weight_bin import BFLOAT16_FLAG, FLAGS

PAGES = Path(__file__).parents[2] / "docs" / "formats"
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def test_the_page_of_layers_has_every_parameter_and_weight():
    sections = dict(SECTION.findall((PAGES / "ncnn-layers.md").read_text()))

    assert list(sections) == list(LAYERS)
    for type_, schema in LAYERS.items():
        for field in schema.fields:
            if field.id < 30:
                assert f"| {field.id} | `{field.name}` | {field.kind} |" in sections[type_]
        for weight in schema.weights:
            assert (
                f"| {weight.role} | {'flagged' if weight.flagged else 'raw'} |" in sections[type_]
            )


def test_the_page_of_weights_names_the_words():
    page = (PAGES / "ncnn-bin.md").read_text()
    words = {int(word, 16): storage for word, storage in re.findall(r"\| (0x\w+) \| (\w+)", page)}

    assert {FLAGS[storage] for storage in Storage} <= set(words)
    assert all(words[flag] == storage.value for storage, flag in FLAGS.items())
    assert words[BFLOAT16_FLAG] == "bfloat16"


def test_the_page_of_layers_lists_the_layers_that_are_always_written():
    page = (PAGES / "ncnn-param.md").read_text()
    sentence = re.search(r"All parameters of (.*?) are,", page, re.DOTALL)[1]

    assert set(re.findall(r"[A-Z]\w+", sentence)) == {s.type for s in LAYERS.values() if s.explicit}
