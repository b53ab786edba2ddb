"""The dataset doctor finds what was planted, all of it, and nothing else."""

import io
import json
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from workbench.data import blossoms
from workbench.data.doctor import duplicate_pairs, examine, leaked_rows
from workbench.data.doctor_page import write_doctor_page
from workbench.data.looking import Facts, look
from workbench.data.splits import ImageTable

KINDS = blossoms.species("downstream")


def flower(kind, index, size=128):
    return Image.fromarray(blossoms.render(KINDS[kind], seed=7, index=index, size=size))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "JPEG", "quality": 90} | options))
    return buffer.getvalue()


def columns(images):
    facts = [look(data) for data in images]
    return {field.name: [getattr(fact, field.name) for fact in facts] for field in fields(Facts)}


def table_of(folder, entries, classes, labels=None):
    """Return a table, written to files, and its facts. Entries are (id, bytes, label, split)."""
    ids, images, plain, splits = zip(*entries, strict=True)
    for name, data in zip(ids, images, strict=True):
        (folder / name).write_bytes(data)
    labels = np.array(plain if labels is None else labels)
    return ImageTable(ids, [folder / name for name in ids], labels, splits, classes), columns(images)


def plain_entries():
    """Eighteen distinct flowers of three classes: 4 train, 1 selection and 1 test of each."""
    splits = ("train", "train", "train", "train", "selection", "test")
    return [(f"{k}{i}.jpg", encoded(flower(k, i)), k, split) for k in range(3) for i, split in enumerate(splits)]


def flattened(report):
    return {finding.kind: finding.ids for finding in report.findings}


def test_a_sound_set_is_clean_and_says_nothing(tmp_path):
    table, facts = table_of(tmp_path, plain_entries(), ("a", "b", "c"))
    report = examine(table, facts, 128)
    assert report.findings == ()
    assert report.is_clean
    assert report.counts == {"train": 12, "selection": 3, "test": 3}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A set with one of everything, its report, and what was planted."""
    exif = Image.Exif()
    exif[0x0112] = 8
    copied, leaked, edited, spread, both = (flower(k, 50 + k) for k in range(5))
    entries = [
        *plain_entries(),
        ("copy1.jpg", encoded(copied), 0, "train"),
        ("copy2.jpg", encoded(copied), 0, "train"),
        ("leak1.jpg", encoded(leaked), 1, "train"),
        ("leak2.jpg", encoded(leaked), 1, "test"),
        ("near1.jpg", encoded(edited), 2, "train"),
        ("near2.jpg", encoded(edited.resize((96, 96))), 2, "train"),
        ("spread1.jpg", encoded(spread), 0, "train"),
        ("spread2.jpg", encoded(ImageEnhance.Brightness(spread).enhance(1.2)), 0, "selection"),
        ("spread3.png", encoded(spread.crop((3, 3, 125, 125)), format="PNG"), 0, "test"),
        ("twist1.jpg", encoded(both), 0, "train"),
        ("twist2.jpg", encoded(both), 1, "train"),
        ("blur1.jpg", encoded(flower(5, 60)), 0, "train"),
        ("blur2.jpg", encoded(flower(5, 60), quality=40), 2, "train"),
        ("small.jpg", encoded(flower(6, 61, 64).resize((64, 200))), 1, "train"),
        ("turned.jpg", encoded(flower(7, 62), exif=exif), 1, "train"),
        ("grey.jpg", encoded(flower(8, 63).convert("L")), 1, "train"),
        ("greyrgb.jpg", encoded(flower(9, 64).convert("L").convert("RGB")), 1, "train"),
        ("cut.jpg", encoded(flower(10, 65))[:-900], 3, "train"),
        ("page.jpg", b"<html>not found</html>", 3, "test"),
        ("page2.jpg", b"<html>not found</html>", 3, "test"),
    ]
    table, facts = table_of(tmp_path_factory.mktemp("planted"), entries, ("a", "b", "c<b>bold</b>", "never"))
    return table, facts, examine(table, facts, 96)


def test_everything_planted_is_found_and_nothing_else(planted):
    _, _, report = planted
    assert flattened(report) == {
        "undecodable": (("cut.jpg",), ("page.jpg",), ("page2.jpg",)),
        "exact_within": (("copy1.jpg", "copy2.jpg"), ("twist1.jpg", "twist2.jpg")),
        "exact_across": (("leak1.jpg", "leak2.jpg"),),
        "conflict_exact": (("twist1.jpg", "twist2.jpg"),),
        "near_within": (("near1.jpg", "near2.jpg"), ("blur1.jpg", "blur2.jpg")),
        "near_across": (("spread1.jpg", "spread2.jpg", "spread3.png"),),
        "conflict_near": (("blur1.jpg", "blur2.jpg"),),
        "untrained_classes": (),
        "untested_classes": (),
        "balance": (),
        "small": (("small.jpg",),),
        "modes": (("grey.jpg",),),
        "rotated": (("turned.jpg",),),
        "grey": (("grey.jpg",), ("greyrgb.jpg",)),
    }
    wrong = {finding.kind for finding in report.findings if finding.severity == "wrong"}
    assert wrong == {
        *("undecodable", "exact_across", "conflict_exact", "near_across", "conflict_near", "untrained_classes"),
    }
    assert not report.is_clean


def test_the_texts_say_how_many_and_where(planted):
    _, _, report = planted
    found = {finding.kind: finding for finding in report.findings}
    assert found["undecodable"].text.startswith("3 images (7.9 %) that cannot be decoded, such as cut.jpg: ")
    assert "page.jpg: 22 bytes that do not decode: no JPEG" in found["undecodable"].text
    assert found["exact_within"].text == "4 images in 2 groups: the same bytes more than once within a split"
    assert "the same bytes in more than one split (1 in train and test)" in found["exact_across"].text
    assert "1 in train and selection and test" in found["near_across"].text
    assert found["near_across"].count == 3
    assert found["untrained_classes"].text == "1 class without train images: never"
    assert found["untrained_classes"].classes == ("never",)
    assert found["balance"].text == "train images of a class: 7 (c<b>bold</b>) to 10 (b), 1.4 times as many"
    assert "a side under 96 pixels" in found["small"].text
    assert "(L 1, RGB 34)" in found["modes"].text
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["is_clean"] is False
    assert plain["counts"] == {"train": 27, "selection": 4, "test": 7}
    assert [finding["kind"] for finding in plain["findings"]] == list(found)
    assert plain["findings"][1]["ids"][0] == ["copy1.jpg", "copy2.jpg"]


def test_a_chain_of_copies_is_one_group(tmp_path):
    photo = flower(0, 70)
    versions = [photo.crop((x, x, 128 - x, 128 - x)) for x in (0, 2, 4, 6, 8)]
    entries = [(f"{i}.png", encoded(v, format="PNG"), 0, "train") for i, v in enumerate(versions)]
    entries += [
        ("again.png", encoded(versions[0], format="PNG"), 0, "train"),
        ("b.jpg", encoded(flower(1, 1)), 1, "test"),
    ]
    table, facts = table_of(tmp_path, entries, ("a", "b"))
    exact, near = duplicate_pairs(facts)
    assert exact.tolist() == [[0, 5]]
    assert [0, 4] not in near.tolist()
    report = flattened(examine(table, facts, 32))
    assert report["exact_within"] == (("0.png", "again.png"),)
    assert report["near_within"] == (("0.png", "1.png", "2.png", "3.png", "4.png", "again.png"),)


def test_multi_label_images_conflict_when_any_label_differs(tmp_path):
    same, other = encoded(flower(0, 0)), encoded(flower(1, 1))
    names = ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg")
    data = (same, same, other, other, encoded(flower(2, 2)))
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    entries = [(name, raw, 0, "test" if name == "5.jpg" else "train") for name, raw in zip(names, data, strict=True)]
    table, facts = table_of(tmp_path, entries, ("a", "b", "c", "d"), labels)
    report = examine(table, facts, 32)
    found = {finding.kind: finding for finding in report.findings}
    assert found["conflict_exact"].ids == (("3.jpg", "4.jpg"),)
    assert found["untrained_classes"].classes == ("c", "d")
    assert found["untested_classes"].classes == ("a", "b", "c")
    assert found["balance"].text == "train images of a class: 3 (b) to 4 (a), 1.3 times as many"
    write_doctor_page(tmp_path / "page.html", report, table)
    assert "train &middot; a, b" in (tmp_path / "page.html").read_text()


def test_leaked_rows_are_those_of_the_tested_images_alone(planted):
    table, facts, _ = planted
    found = leaked_rows(facts, table.indices("train"), table.indices("test"))
    assert [table.ids[row] for row in found] == ["leak2.jpg", "spread3.png"]
    found = leaked_rows(facts, table.indices("train"), table.indices("test")[::-1])
    assert [table.ids[row] for row in found] == ["spread3.png", "leak2.jpg"]
    assert leaked_rows(facts, table.indices("test"), np.array([], dtype=int)).tolist() == []
    assert leaked_rows(facts, np.array([], dtype=int), table.indices("test")).tolist() == []


def test_pairs_are_the_same_for_any_block_size(planted, monkeypatch):
    _, facts, _ = planted
    expected = sorted(duplicate_pairs(facts)[1].tolist())
    assert len(expected) == 5
    for block in ((1, 1), (3, 5), (7, 2)):
        monkeypatch.setattr("workbench.data.looking._BLOCK", block)
        assert sorted(duplicate_pairs(facts)[1].tolist()) == expected


def test_an_empty_or_wholly_broken_set_has_no_pairs():
    for images in ([], [b"x", b"x"]):
        exact, near = duplicate_pairs(columns(images))
        assert exact.shape == near.shape == (0, 2)


def test_the_page_shows_every_picture_that_was_found(planted, tmp_path):
    table, _, report = planted
    write_doctor_page(tmp_path / "doctor.html", report, table)
    page = (tmp_path / "doctor.html").read_text(encoding="utf-8")
    for finding in report.findings:
        for name in (name for group in finding.ids for name in group):
            assert f"{name}<br>" in page
    shown = sum(len(group) for finding in report.findings for group in finding.ids)
    assert page.count("data:image/jpeg;base64,") == shown - 3
    assert page.count("bytes that do not decode") == 3 + 3  # under each, and in the text
    assert "<b>" not in page
    assert "c&lt;b&gt;bold&lt;/b&gt;" in page
    assert "http" not in page.replace("https://www.w3.org", "")
    assert "6 of the findings below can make a figure wrong." in page
    assert [path.name for path in tmp_path.iterdir()] == ["doctor.html"]


def test_the_page_of_a_sound_set_says_so(tmp_path):
    table, facts = table_of(tmp_path, plain_entries(), ("a", "b", "c"))
    write_doctor_page(tmp_path / "doctor.html", examine(table, facts, 32), table)
    assert "Nothing was found that can make a figure wrong." in (tmp_path / "doctor.html").read_text()


def test_the_page_shows_at_most_40_groups_and_6_images_of_one(tmp_path):
    many = [encoded(Image.new("RGB", (8 + i, 8), "red")) for i in range(45)] + [encoded(flower(0, 0))] * 9
    entries = [(f"i{i:02d}.jpg", data, i % 2, "train") for i, data in enumerate(many)]
    table, facts = table_of(tmp_path, entries, ("a", "b"))
    report = examine(table, facts, 64)
    write_doctor_page(tmp_path / "doctor.html", report, table)
    page = (tmp_path / "doctor.html").read_text()
    assert "5 more images are in the report" in page
    assert page.count("and 3 more") == 2  # the nine copies, whose labels differ too
    assert page.count("<figure>") == 40 + 6 + 6


def test_a_flat_image_leaks_as_an_exact_copy_alone():
    flat = [encoded(Image.new("RGB", (40, 40), colour)) for colour in ("white", "white", "#fefefe", "black")]
    facts = columns(flat)
    assert leaked_rows(facts, np.array([0]), np.array([1, 2, 3])).tolist() == [1]
    exact, near = duplicate_pairs(facts)
    assert (exact.tolist(), near.tolist()) == ([[0, 1]], [])
