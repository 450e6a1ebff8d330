"""Words of texts, and the terms that stand for them in the index.

A term is a keyed digest of a word. The key is the salt of one scope, so a term occurs only in the index of that scope, tells nothing of the
word, and nothing that a caller writes reaches the query language of the database.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from itertools import islice
from typing import Final

QUERY_WORDS_MAX: Final = 64  # words of a search that count, the first ones
QUERY_MAX: Final = 4096  # characters of a search that are read
WORD_MAX: Final = 64  # characters of a word that count
TERM_BYTES: Final = 8
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ACCENTS: Final = re.compile("[\u0300-\u036f]")
_WORDS: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")  # scripts without spaces between words: each character is one


def words_of(text: str) -> list[str]:
    """The different words of a text in their order, without case and accents. Takes time in proportion to its length."""
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text)).casefold()
    return list(dict.fromkeys(found[0][:WORD_MAX] for found in _WORDS.finditer(plain)))


def query_words(query: str) -> list[str]:
    """The words that a search looks for."""
    return list(islice(words_of(query[:QUERY_MAX]), QUERY_WORDS_MAX))


def terms_of(words: Iterable[str], salt: str) -> list[str]:
    """The term of each word, as hex digits."""
    key = bytes.fromhex(salt)
    return [hashlib.blake2b(word.encode("utf-8", "surrogatepass"), key=key, digest_size=TERM_BYTES).hexdigest() for word in words]


def keyed_digest(text: str, salt: str) -> str:
    """A digest of a whole text, by which equal texts of a scope are found."""
    return hashlib.blake2b(text.encode(), key=bytes.fromhex(salt), digest_size=16).hexdigest()
