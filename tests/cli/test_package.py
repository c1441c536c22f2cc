"""`package` writes a zip, and `verify` takes what the board says of it."""

import json
import zipfile


def test_a_package_stands_in_the_bundle(place):
    told = place.run("package", "--images", "images")

    assert told.exit_code == 0, told.output
    assert "wrote deploy/package-src.zip" in told.stdout
    assert "README.md tells the few commands" in told.stdout
    with zipfile.ZipFile(place.folder / "deploy" / "package-src.zip") as archive:
        assert archive.testzip() is None


def test_json_names_every_file(place):
    words = "--target", "rpi", "--images", "images/scene0.png", "-o", "board/rpi.zip", "--json"

    told = place.run("package", "deploy", *words)

    said = json.loads(told.stdout)
    assert (said["path"], said["target"]) == ("board/rpi.zip", "rpi")
    with zipfile.ZipFile(place.folder / "board" / "rpi.zip") as archive:
        held = {info.filename: info.file_size for info in archive.infolist()}
    assert {file["name"]: file["bytes"] for file in said["files"]} == held


def test_what_cannot_be_packed_is_told(place):
    for words, code, sentence in (
        (("images",), 3, "is not a bundle"),
        (("deploy", "--images", "nowhere"), 3, "no such file or folder of images"),
        (("deploy", "--target", "toaster"), 2, "toaster"),
    ):
        told = place.run("package", *words)
        assert (told.exit_code, sentence in told.stderr) == (code, True), told.stderr


def test_a_result_of_nowhere_is_told_before_anything_runs(place):
    told = place.run("verify", "--images", "images", "--device-result", "none.json")

    assert told.exit_code == 3
    assert "none.json: cannot be read" in told.stderr
    assert not (place.folder / "deploy" / "verify.json").exists()
