"""The same text gives the same ids in every form; what breaks a rule is named with its file and place."""

import lzma

import numpy as np
import pytest

from mtl_tickets.errors import DataError, InputError
from mtl_tickets.pretraining.text import find_sources, plain_lines, read_text
from mtl_tickets.pretraining.vocabulary import train_vocabulary
from mtl_tickets.tasks import playground

from .conftest import sentences


def ids_of(path, tokenizer, cache):
    return read_text(find_sources([str(path)], 1000), tokenizer, cache)


def packed(path, ids):
    data = np.asarray(ids, dtype="<u2").tobytes()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def test_every_form_of_a_text_gives_the_same_ids(text_file, tokenizer, tmp_path):
    plain = ids_of(text_file, tokenizer, tmp_path)
    compressed = tmp_path / "topics.txt.xz"
    compressed.write_bytes(lzma.compress(text_file.read_bytes()))
    forms = [compressed, packed(tmp_path / "a.u16", plain.ids), packed(tmp_path / "a.u16.xz", plain.ids)]
    for form in forms:
        other = ids_of(form, tokenizer, tmp_path)
        np.testing.assert_array_equal(other.ids, plain.ids)
        np.testing.assert_array_equal(other.ends, plain.ends)


def test_documents_end_with_a_separator_and_hold_their_paragraphs(tokenizer, tmp_path):
    path = tmp_path / "two.txt"
    path.write_text("\n\nCat purrs .\nTree roots .\n\n \n\nBread oven .", encoding="utf-8")
    text = ids_of(path, tokenizer, tmp_path)
    first, second = np.split(text.ids, text.ends[:-1])
    assert text.ends[-1] == len(text.ids)
    assert tokenizer.decode(first) == "cat purrs. tree roots. [SEP]"
    assert tokenizer.decode(second) == "bread oven. [SEP]"


def test_words_that_look_like_special_tokens_are_text(tokenizer, tmp_path):
    path = tmp_path / "special.txt"
    path.write_text("milk [MASK] [SEP] cat\n", encoding="utf-8")
    ids = ids_of(path, tokenizer, tmp_path).ids
    assert tokenizer.mask_token_id not in ids
    assert list(ids).count(tokenizer.sep_token_id) == 1


def test_windows_line_ends_and_byte_order_marks_change_nothing(text_file, tokenizer, tmp_path):
    other = tmp_path / "windows.txt"
    other.write_bytes(b"\xef\xbb\xbf" + text_file.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(
        ids_of(other, tokenizer, tmp_path).ids, ids_of(text_file, tokenizer, tmp_path / "other").ids
    )


def test_text_is_tokenised_once(text_file, tokenizer, tmp_path):
    first = ids_of(text_file, tokenizer, tmp_path)

    kept = next((tmp_path / "text").glob("*/ids"))
    made = kept.stat().st_ino, kept.stat().st_mtime_ns
    again = ids_of(text_file, tokenizer, tmp_path)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == made
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.ids, first.ids)
    changed = tmp_path / "changed.txt"
    changed.write_bytes(text_file.read_bytes() + b"\nmore\n")
    assert ids_of(changed, tokenizer, tmp_path).fingerprint != first.fingerprint


def test_a_damaged_cache_is_made_anew(text_file, tokenizer, tmp_path):
    first = np.array(ids_of(text_file, tokenizer, tmp_path).ids)
    kept = next((tmp_path / "text").glob("*/ids"))
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="damaged"):
        again = ids_of(text_file, tokenizer, tmp_path)
    np.testing.assert_array_equal(again.ids, first)


def test_the_playground_is_a_source(tokenizer, tmp_path):
    sources = find_sources(["playground"], 500)
    lines = list(plain_lines(sources))
    documents = [" ".join(lines[i : i + 2]) for i in range(0, len(lines), 3)]
    assert not any(lines[2::3])
    assert documents == list(playground.text(seed=0, tokens=500))
    assert len(read_text(sources, tokenizer, tmp_path).ends) == len(documents)


def test_patterns_and_several_files_are_read_in_order(text_file, tokenizer, tmp_path):
    for name, line in (("b.txt", "tree roots"), ("a.txt", "cat purrs")):
        (tmp_path / name).write_text(line, encoding="utf-8")
    text = read_text(find_sources([str(tmp_path / "*.txt"), str(text_file)], 1), tokenizer, tmp_path)
    assert tokenizer.decode(text.ids).startswith("cat purrs [SEP] tree roots [SEP]")


def test_all_names_that_stand_for_nothing_are_reported_together(text_file, tmp_path):
    names = [str(text_file.parent / "topic.txt"), str(tmp_path / "*.u16"), str(tmp_path)]
    with pytest.raises(DataError) as error:
        find_sources([*names, str(text_file)], 1)
    assert len(error.value.problems) == 3
    assert "did you mean 'topics.txt'" in str(error.value)


def test_broken_utf8_names_every_line(tokenizer, tmp_path):
    path = tmp_path / "broken.txt"
    path.write_bytes(b"fine\nbro\xffken\nfine\n\xfe\n")
    with pytest.raises(DataError) as error:
        ids_of(path, tokenizer, tmp_path)
    assert [problem.place for problem in error.value.problems] == ["line 2", "line 4"]
    assert not list(tmp_path.glob("text/*"))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("cut.txt.xz", lzma.compress(b"the cat " * 9999)[:-30], "whole xz file"),
        ("no.u16.xz", b"not compressed", "whole xz file"),
        ("odd.u16", b"\x05\x00\x06", "even number of bytes"),
        ("empty.txt", b"\n  \n", "must hold text"),
        ("empty.u16", b"", "must hold text"),
        ("separators.u16", b"\3\0\3\0\3\0", "must hold text"),
    ],
)
def test_broken_files_are_refused(name, content, rule, tokenizer, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rule):
        ids_of(tmp_path / name, tokenizer, tmp_path)


def test_ids_above_the_vocabulary_are_placed(tokenizer, tmp_path):
    path = packed(tmp_path / "a.u16.xz", [5, 6, len(tokenizer), 7])
    with pytest.raises(DataError, match=f"token 3: token ids must be below {len(tokenizer)}"):
        ids_of(path, tokenizer, tmp_path)


def test_packs_of_another_vocabulary_become_words_first(text_file, tokenizer, tmp_path):
    other = train_vocabulary(lambda: sentences(200, seed=9), 150, positions=32)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(other.convert_ids_to_tokens(range(len(other)))), encoding="utf-8")
    lines = sentences(40)
    # special tokens are no words, wherever they stand
    marks = [other.cls_token_id, other.unk_token_id, other.pad_token_id]
    ids = [[*marks, *other(line, add_special_tokens=False)["input_ids"], other.sep_token_id] for line in lines]
    pack = packed(tmp_path / "other.u16.xz", np.concatenate(ids))
    plain = tmp_path / "same.txt"
    plain.write_text("\n\n".join(lines), encoding="utf-8")
    found = find_sources([str(pack)], 1, str(vocabulary))
    assert [line for line in plain_lines(found) if line] == lines
    words = read_text(found, tokenizer, tmp_path / "cache")
    expected = read_text(find_sources([str(plain)], 1), tokenizer, tmp_path / "cache")
    for name in ("ids", "ends", "lines"):
        np.testing.assert_array_equal(getattr(words, name), getattr(expected, name))
    with pytest.raises(DataError, match=r"must have the pieces \[PAD\]"):
        find_sources([str(pack)], 1, str(plain))
    with pytest.raises(DataError, match="packs_vocabulary is for token packs"):
        find_sources([str(plain)], 1, str(vocabulary))


def test_no_vocabulary_from_packs(tmp_path):
    path = packed(tmp_path / "a.u16", [5, 6])
    with pytest.raises(InputError, match="cannot be trained on token ids"):
        list(plain_lines(find_sources([str(path)], 1)))
