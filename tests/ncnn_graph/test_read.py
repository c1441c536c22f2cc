import pytest
from ncnn_graphs import closed_graph, sample_layer

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.param_text import read_param, render_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import read_ncnn, render_bin

GRAPH = closed_graph(sample_layer("Convolution"))


@pytest.fixture
def files(tmp_path):
    param, weights = tmp_path / "net.param", tmp_path / "net.bin"
    param.write_text(render_param(GRAPH))
    weights.write_bytes(render_bin(GRAPH))
    return param, weights


def test_two_files_become_a_graph(files):
    assert read_ncnn(*files) == GRAPH


@pytest.mark.parametrize("lost", [0, 1])
def test_a_missing_file_is_named(files, lost):
    files[lost].unlink()

    with pytest.raises(FormatError, match="cannot be read: No such file") as caught:
        read_ncnn(*files)
    assert caught.value.where == str(files[lost])


def test_files_of_two_networks_are_distinguished(files):
    files[1].write_bytes(render_bin(closed_graph(sample_layer("InnerProduct"))))

    with pytest.raises(FormatError, match="within weight of Convolution 'layer'") as caught:
        read_ncnn(*files)
    assert "belongs to another network" in caught.value.hint


def test_a_weight_file_is_no_param(files):
    files[0].write_bytes(b"\x47\x6b\x30\x01\xff\x3c")

    with pytest.raises(FormatError, match="byte 4 is not text"):
        read_ncnn(*files)


def test_a_binary_param_is_recognised(files):
    files[0].write_bytes((7767517).to_bytes(4, "little") + bytes(8))

    with pytest.raises(FormatError, match="begins with") as caught:
        read_ncnn(*files)
    assert "a .param.bin is binary" in caught.value.hint


def test_a_folder_is_no_param(tmp_path):
    with pytest.raises(FormatError, match="cannot be read: Is a directory"):
        read_param(tmp_path)


def test_a_foreign_file_is_read_for_display(files):
    files[0].write_text(files[0].read_text() + "# the end\n")

    parsed = read_param(files[0])

    assert len(parsed.graph.layers) == 2
    # the comment, and the count of layers that it spoils
    assert [finding.line for finding in parsed.findings] == [2, 5]
