import zipfile

import pytest

import rankproof.data.archive as room
from rankproof.data.archive import open_archive
from rankproof.data.text_table import leaves
from rankproof.errors import RankproofError

TABLE = """path,class_id,class_name,split,extra
p/1.png,10,ten,train,x
p/2.png,9,nine,val,x
p/3.png,9,nine,test,x
p/4.png,10,ten,test,x
p/5.png,11,icon,iconic,x
"""


@pytest.fixture(params=["zip", "folder"])
def place(request, make, tmp_path):
    """Builds the same files as a zip or as a folder."""

    def build(files):
        return (
            make.zip(tmp_path / "set.zip", files)
            if request.param == "zip"
            else make.tree(tmp_path / "set", files)
        )

    return build


def images(make):
    return {f"p/{number}.png": make.flat(number) for number in range(1, 6)}


def test_reads_the_table(place, make):
    with open_archive(place({"metadata.csv": TABLE, **images(make)})) as listing:
        assert listing.name == "set"
        assert [(image.file, image.key, image.given) for image in listing.images] == [
            ("p/1.png", "10", "train"),
            ("p/2.png", "9", "train"),
            ("p/3.png", "9", "test"),
            ("p/4.png", "10", "test"),
        ]
        assert list(listing.classes.items()) == [("9", "nine"), ("10", "ten")]
        assert listing.remarks == ("1 images marked val belong to train", "1 iconic images left out")
        assert listing.read("p/3.png") == make.encoded(make.flat(3))


def test_needs_only_path_and_class(place, make):
    table = "\ufeffpath,class_id\np/1.png,b\np/2.png,a\n"
    with open_archive(place({"metadata.csv": table, **images(make)})) as listing:
        assert listing.classes == {"a": "a", "b": "b"}
        assert {image.given for image in listing.images} == {None}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("class_id,split\n1,train\n", "lacks the column path"),
        ("path,split\np/1.png,train\n", "lacks the column class_id"),
        ("", "lacks the column path and class_id"),
        ("path,class_id,split\np/1.png,1,trian\n", "row 1: split must be one of .*'trian'"),
        ("path,class_id,split\np/1.png,1,train\np/2.png\n", "row 2: path or class_id is empty"),
        ("path,class_id\np/1.png,1\np/1.png,2\n", r"row 2: p/1\.png is listed twice"),
        ("path,class_id\n../evil.png,1\n", r"row 1: path '\.\./evil\.png' leaves"),
        ("path,class_id\n/etc/passwd,1\n", "leaves"),
        (b"path,class_id\n\xff\xfe,1\n", "not a UTF-8 table"),
        ("path,class_id\n" + "x" * 200_000 + ",1\n", "not a UTF-8 table"),
    ],
)
def test_refuses_a_bad_table(place, table, message):
    with (
        pytest.raises(RankproofError, match=message) as error,
        open_archive(place({"metadata.csv": table})),
    ):
        pass
    assert "metadata.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_a_listed_image_that_is_missing(place):
    with (
        open_archive(place({"metadata.csv": "path,class_id\np/1.png,1\n"})) as listing,
        pytest.raises(RankproofError, match=r"p/1\.png"),
    ):
        listing.read("p/1.png")


@pytest.mark.parametrize(
    "name", ["../evil.png", "p/../../evil.png", "/evil.png", "C:/evil.png", "p\\..\\..\\evil.png"]
)
def test_refuses_members_that_leave_the_archive(make, tmp_path, name):
    path = make.zip(tmp_path / "set.zip", {"metadata.csv": TABLE, **images(make), name: "x"})
    with pytest.raises(RankproofError, match="leaves the archive"), open_archive(path):
        pass


def test_ordinary_names_stay():
    assert not any(leaves(name) for name in ("a.png", "p/a..b.png", "p/.../a.png", "p/Ärger 1.png", "p/"))


def test_a_zip_without_a_table_is_refused(make, tmp_path):
    with (
        pytest.raises(RankproofError, match=r"has no metadata\.csv"),
        open_archive(make.zip(tmp_path / "a.zip", {})),
    ):
        pass


@pytest.mark.parametrize("raw", [b"", b"text", b"PK\x03\x04" + b"\x00" * 60])
def test_what_is_no_zip_is_refused(tmp_path, raw):
    (tmp_path / "set.zip").write_bytes(raw)
    with (
        pytest.raises(RankproofError, match=r"set\.zip: not a readable zip"),
        open_archive(tmp_path / "set.zip"),
    ):
        pass


def test_a_damaged_member_is_named(make, tmp_path):
    path = make.zip(tmp_path / "set.zip", {"metadata.csv": TABLE, **images(make)})
    raw = path.read_bytes()
    inside = make.encoded(make.flat(3))
    path.write_bytes(raw.replace(inside, inside[:-1] + b"?"))
    with open_archive(path) as listing:
        assert listing.read("p/2.png")
        with pytest.raises(RankproofError, match=r"p/3\.png cannot be unpacked"):
            listing.read("p/3.png")


def test_bombs_are_refused_by_the_size_they_claim(make, tmp_path, monkeypatch):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.csv", TABLE)
        archive.writestr("p/1.png", bytes(100_000))
    monkeypatch.setattr(room, "MAX_BYTES", 50_000)
    with open_archive(path) as listing, pytest.raises(RankproofError, match=r"p/1\.png is larger than"):
        listing.read("p/1.png")
    monkeypatch.setattr(room, "MAX_UNPACKED", 100_000)
    with pytest.raises(RankproofError, match="would unpack to more than"), open_archive(path):
        pass


def test_a_member_cannot_unpack_to_more_than_it_claims(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.csv", TABLE)
        archive.writestr("p/1.png", bytes(100_000))
    raw = path.read_bytes()
    path.write_bytes(raw.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with open_archive(path) as listing, pytest.raises(RankproofError, match="cannot be unpacked"):
        listing.read("p/1.png")


def test_nothing_is_written_to_disk(make, tmp_path):
    path = make.zip(tmp_path / "set.zip", {"metadata.csv": TABLE, **images(make)})
    with open_archive(path) as listing:
        listing.read("p/1.png")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "shared"),
    [("cars196_cropped_128.zip", 8054, 8131, 196, 0), ("grocery_128.zip", 2640 + 296, 2485, 81, 81)],
)
def test_the_published_zips_list_what_they_should(real, name, train, test, classes, shared):
    with open_archive(real(name)) as listing:
        given = [image.given for image in listing.images]
        assert (given.count("train"), given.count("test"), len(listing.classes)) == (train, test, classes)
        trained, tested = (
            {image.key for image in listing.images if image.given == split} for split in ("train", "test")
        )
        assert len(trained & tested) == shared
        assert not any("iconic" in image.file.lower() for image in listing.images)
        assert len(listing.read(listing.images[-1].file)) > 500
