"""`package` writes a zip, and `verify` reads the result of the board."""

import json
import zipfile


def test_a_package_is_written_into_the_bundle(place):
    result = place.run("package", "--images", "images")

    assert result.exit_code == 0, result.output
    assert "wrote deploy/package-src.zip" in result.stdout
    assert "README.md lists the commands" in result.stdout
    with zipfile.ZipFile(place.folder / "deploy" / "package-src.zip") as archive:
        assert archive.testzip() is None


def test_json_names_every_file(place):
    words = "--target", "rpi", "--images", "images/scene0.png", "-o", "board/rpi.zip", "--json"

    result = place.run("package", "deploy", *words)

    report = json.loads(result.stdout)
    assert (report["path"], report["target"]) == ("board/rpi.zip", "rpi")
    with zipfile.ZipFile(place.folder / "board" / "rpi.zip") as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert {file["name"]: file["bytes"] for file in report["files"]} == sizes


def test_what_cannot_be_packed_is_an_error(place):
    for words, code, message in (
        (("images",), 3, "not a bundle"),
        (("deploy", "--images", "nowhere"), 3, "no such file or folder of images"),
        (("deploy", "--target", "toaster"), 2, "toaster"),
    ):
        result = place.run("package", *words)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_a_missing_result_is_an_error_before_anything_runs(place):
    result = place.run("verify", "--images", "images", "--device-result", "none.json")

    assert result.exit_code == 3
    assert "none.json: cannot be read" in result.stderr
    assert not (place.folder / "deploy" / "verify.json").exists()
