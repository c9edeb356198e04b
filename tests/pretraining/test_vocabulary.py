"""The same text gives the same bytes, in every process; the folder is one that transformers reads."""

import hashlib
import os
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from mtl_tickets.errors import DataError, InputError
from mtl_tickets.pretraining.vocabulary import (
    SPECIALS,
    read_vocabulary,
    require_specials,
    train_vocabulary,
)

TRAIN = """
import sys
from pathlib import Path
from mtl_tickets.pretraining.vocabulary import train_vocabulary, save_tokenizer
lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
save_tokenizer(train_vocabulary(lambda: lines, 300), Path(sys.argv[2]))
"""


def bytes_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_text_same_bytes_in_other_processes(tmp_path):
    # many pieces of equal frequency, so that ties would show
    words = [f"{a}{b}{c}" for a in "abcdefg" for b in "aeiouöé" for c in "lmnrstxyz"]
    text = tmp_path / "words.txt"
    text.write_text("\n".join(f"{w} {v} !" for w, v in zip(words, words[::-1], strict=True)), encoding="utf-8")
    found = []
    for number in range(3):
        folder = tmp_path / str(number)
        environment = os.environ | {"TOKENIZERS_PARALLELISM": str(number != 1).lower()}
        subprocess.run([sys.executable, "-c", TRAIN, str(text), str(folder)], check=True, env=environment)
        found.append(bytes_of(folder))
    assert found[0] == found[1] == found[2]
    assert {"tokenizer.json", "tokenizer_config.json", "vocab.txt"} <= set(found[0])


def test_auto_tokenizer_reads_the_folder(tokenizer, tokenizer_folder):
    again = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.model_max_length == 32
    encoded = again("The CAT purrs", "Möuse sofa")
    assert again.decode(encoded["input_ids"]) == "[CLS] the cat purrs [SEP] mouse sofa [SEP]"
    assert encoded["token_type_ids"][-1] == 1
    assert [again.convert_ids_to_tokens(i) for i in range(5)] == list(SPECIALS)


def test_vocabulary_of_a_file_equals_the_trained_one(tokenizer, tokenizer_folder):
    again = read_vocabulary(tokenizer_folder / "vocab.txt")
    assert again.get_vocab() == tokenizer.get_vocab()
    line = "Tree roots , bread ."
    assert again(line)["input_ids"] == tokenizer(line)["input_ids"]


def test_a_trained_vocabulary_spells_its_whole_text(tokenizer, text_file):
    lines = text_file.read_text(encoding="utf-8").splitlines()
    ids = {i for line in lines for i in tokenizer(line)["input_ids"]}
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) <= 200


def test_size_is_kept_and_rare_characters_go_first():
    lines = ["".join(chr(0x4E00 + i) for i in range(k)) + " common words" for k in range(200)]
    tokenizer = train_vocabulary(lambda: lines, 120)
    assert len(tokenizer) <= 120
    assert tokenizer.convert_tokens_to_ids("c") != tokenizer.unk_token_id


def test_case_is_kept_where_asked_for():
    tokenizer = train_vocabulary(lambda: ["The Cat"] * 5, 100, lower_case=False)
    assert tokenizer.tokenize("The Cat") == ["The", "Cat"]
    assert tokenizer.unk_token in tokenizer.tokenize("THE")


def test_bad_vocabularies_are_refused(tmp_path, tokenizer):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\nword\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"must have the pieces \[SEP\], \[MASK\]"):
        read_vocabulary(path)
    path.write_text("\n".join([*SPECIALS, "word", "word"]), encoding="utf-8")
    with pytest.raises(DataError, match="only once"):
        read_vocabulary(path)
    with pytest.raises(DataError, match="no text"):
        train_vocabulary(lambda: ["  ", ""], 100)


def test_a_tokenizer_without_mask_is_refused(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.mask_token = None
    with pytest.raises(InputError, match="mask_token"):
        require_specials(tokenizer, "mine")
