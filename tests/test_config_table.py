import pytest

from rankproof.config_table import read_toml
from rankproof.errors import RankproofError


@pytest.mark.parametrize("raw", [b'a = "\xc3\xa4"\n', b'\xef\xbb\xbfa = "\xc3\xa4"\r\n'])
def test_toml_is_read_with_and_without_a_byte_order_mark(tmp_path, raw):
    (tmp_path / "x.toml").write_bytes(raw)
    assert read_toml(tmp_path / "x.toml") == {"a": "ä"}


@pytest.mark.parametrize(
    "raw",
    [
        b"a = ",
        b"a = \xff",
        "a = 1".encode("utf-16"),
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 100_000,
        b"a = 1\0",
    ],
)
def test_what_is_no_toml_is_one_line(tmp_path, raw):
    (tmp_path / "x.toml").write_bytes(raw)
    with pytest.raises(
        RankproofError, match=r"x\.toml: cannot be read as TOML \(.*\); correct it, in UTF-8$"
    ) as error:
        read_toml(tmp_path / "x.toml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(RankproofError, match=r"x\.toml: No such file"):
        read_toml(tmp_path / "x.toml")
