import zipfile

import pytest

import rankproof.data.archive as room
from rankproof.data import load
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


def test_images_of_a_zip_that_the_table_does_not_list_are_counted(make, tmp_path):
    files = {
        "metadata.csv": "path,class_id\np/1.png,a\np/2.png,b\n",
        **images(make),
        "__MACOSX/p/._1.png": "x",
    }
    with open_archive(make.zip(tmp_path / "x.zip", files)) as listing:
        assert listing.remarks == ("3 images that metadata.csv does not list left out",)


def test_needs_only_path_and_class(place, make):
    table = "\ufeffpath,class_id\np/1.png,b\np/2.png,a\n"
    with open_archive(place({"metadata.csv": table, **images(make)})) as listing:
        assert listing.classes == {"a": "a", "b": "b"}
        assert {image.given for image in listing.images} == {None}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_reads_every_delimiter(place, make, delimiter, mark, end):
    rows = [
        ("path", "class_id ", "class_name"),
        ("p/1.png", "10", "x, y; z\tw"),
        ("./p//2.png", " 9", "nine"),
    ]
    quoted = [[f'"{value}"' if value.startswith("x") else value for value in row] for row in rows]
    table = mark + end.join(delimiter.join(row) for row in quoted) + end
    with open_archive(place({"metadata.csv": table, **images(make)})) as listing:
        assert list(listing.classes.items()) == [("9", "nine"), ("10", "x, y; z\tw")]
        assert [image.file for image in listing.images] == ["p/1.png", "p/2.png"]
        assert listing.read("p/2.png") == make.encoded(make.flat(2))


def test_class_ids_may_be_of_any_length(place):
    long = "1" + "0" * 5000
    table = f"path,class_id\n1.png,{long}\n2.png,020\n3.png,11\n4.png,b\n"
    with open_archive(place({"metadata.csv": table})) as listing:
        assert list(listing.classes) == ["11", "020", long, "b"]


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
        ("path,class_id\n".encode("utf-16"), "not a UTF-8 table"),
        ("path,class_id\np/1\0.png,1\n", "holds a NUL character"),
        ("path,class_id\np/1.png,1\n./p/1.png,2\n", r"row 2: p/1\.png is listed twice"),
        ("path,class_id\np/1.png,1\np//1.png,1\n", r"row 2: p/1\.png is listed twice"),
        ("path,class_id\np/1.png,1\np\\1.png,1\n", r"row 2: p/1\.png is listed twice"),
        ("path,class_id\n./,1\n", "row 1: path './' names no file"),
        ("path,class_name,class_id\np/1.png,Audi, red,1\n", "row 1: 4 values for 3 columns"),
        ("path,class_id,class_id\np/1.png,1,2\n", "the column class_id twice"),
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


def listing_of(path):
    with open_archive(path) as listing:
        return (
            {image.file: image.key for image in listing.images},
            listing,
            listing.read(listing.images[0].file),
        )


def test_a_zip_without_a_table_is_read_as_the_folder_it_was_made_of(make, tmp_path):
    classes = {"a/1.png": make.flat(1), "b/2.png": make.flat(2)}
    extra = {"__MACOSX/a/._1.png": "x", ".DS_Store": "x", "readme.txt": "x"}
    for prefix in ("", "set/", "outer/set/"):
        path = make.zip(
            tmp_path / f"{len(prefix)}.zip",
            {f"{prefix}{name}": file for name, file in classes.items()} | extra,
        )
        images, listing, first = listing_of(path)
        assert images == {f"{prefix}a/1.png": "a", f"{prefix}b/2.png": "b"}
        assert (first, listing.kind) == (make.encoded(make.flat(1)), "folder of classes")
    images, listing, _ = listing_of(make.zip(tmp_path / "flat.zip", {"x/1.png": "x", "x/2.png": "x"}))
    assert images == {"x/1.png": None, "x/2.png": None}
    parts = {f"{part}/{key}/1.png": "x" for part in ("train", "test") for key in "ab"}
    images, listing, _ = listing_of(make.zip(tmp_path / "parts.zip", parts))
    assert [image.given for image in listing.images] == ["train", "train", "test", "test"]


def test_a_zip_without_a_table_loads(make, tmp_path):
    files = {f"set/{key}/{number}.png": make.flat(number) for key in "ab" for number in range(4)}
    dataset = load(make.zip(tmp_path / "x.zip", files))
    assert (dataset.classes, len(dataset)) == (("a", "b"), 4)


def test_a_table_in_the_only_folder_of_a_zip_is_found(make, tmp_path):
    files = {"set/metadata.csv": "path,class_id\n1.png,a\n2.png,b\n", "set/1.png": "one", "set/2.png": "two"}
    images, _, first = listing_of(make.zip(tmp_path / "x.zip", files))
    assert (images, first) == ({"1.png": "a", "2.png": "b"}, b"one")


@pytest.mark.parametrize("table", ["Ebay_train.txt", "images.txt"])
def test_a_zip_of_published_tables_is_not_taken_for_classes(make, tmp_path, table):
    path = make.zip(
        tmp_path / "x.zip", {f"set/{table}": "x", "set/bicycle_final/1.JPG": "x", "set/fan/2.JPG": "x"}
    )
    with (
        pytest.raises(RankproofError, match=f"{table}, which is read from a folder; unpack it"),
        open_archive(path),
    ):
        pass


def test_an_empty_zip_says_what_is_expected(make, tmp_path):
    with (
        pytest.raises(
            RankproofError, match=r"no images found; .*a/CLASS/IMAGE\.jpg, or list them in metadata\.csv"
        ),
        open_archive(make.zip(tmp_path / "a.zip", {})),
    ):
        pass


def test_names_with_backslashes_are_paths(make, tmp_path):
    images, _, first = listing_of(make.zip(tmp_path / "x.zip", {"a\\1.png": "one", "b\\2.png": "two"}))
    assert (images, first) == ({"a/1.png": "a", "b/2.png": "b"}, b"one")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("other", ["a/1.png", "./a/1.png", "a//1.png", "a\\1.png"])
def test_a_file_that_is_twice_in_a_zip_is_an_error(tmp_path, other):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.png", "one")
        archive.writestr(other, "two")
    with pytest.raises(RankproofError, match=r"holds a/1\.png twice"), open_archive(tmp_path / "x.zip"):
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
