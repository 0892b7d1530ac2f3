"""`spiking_controller keys` makes key pairs and shows which one a file belongs to; mistakes end in a sentence."""

from pathlib import Path

import pytest

from spiking_controller import cli


def test_a_pair_is_made_and_both_halves_show_its_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "create", str(tmp_path / "lab")]) == 0
    fingerprint = capsys.readouterr().out.split()[-1]
    assert len(bytes.fromhex(fingerprint)) == 32
    for file, half in (("lab.pem", "private"), ("lab.pub.pem", "public")):
        assert cli.main(["keys", "show", str(tmp_path / file)]) == 0
        assert capsys.readouterr().out == f"{tmp_path / file}: {half} key, fingerprint {fingerprint}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["create", "taken"], "taken.pem: exists already and is not overwritten"),
        (["create", "nowhere/lab"], "nowhere/lab.pem: cannot be written (No such file or directory)"),
        (["show", "nothing.pem"], "nothing.pem: the key cannot be read"),
        (["show", "taken.pem"], "taken.pem: is no usable PEM key"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.pem").write_text("precious")
    assert cli.main(["keys", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {sentence}")
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pem"]
