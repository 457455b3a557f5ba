"""Read token ids as text.

Whisper's vocabulary is byte-level: a token is a run of bytes and may end inside a character. Text
is therefore made from bytes, here and nowhere else, so that every engine spells the same.
"""

from collections.abc import Iterable

import tokenizers


def byte_pieces(tokenizer: tokenizers.Tokenizer) -> list[bytes]:
    """Return what each token id adds to a text, as bytes; special tokens and timestamps add none.

    Raises:
        ValueError: the tokenizer is not a byte-level one, so it is not Whisper's.
    """
    alphabet = _alphabet()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values()) + 1)
    added = tokenizer.get_added_tokens_decoder()
    for piece, index in vocabulary.items():
        if index in added:
            plain = not (added[index].special or (piece.startswith("<|") and piece.endswith("|>")))
            pieces[index] = piece.encode() if plain else b""
            continue
        unknown = next((character for character in piece if character not in alphabet), None)
        if unknown is not None:
            raise ValueError(
                f"the tokenizer is not Whisper's: its piece {piece!r} (id {index}) has {unknown!r},"
                " which stands for no byte. Give a Whisper model with its own tokenizer.json."
            )
        pieces[index] = bytes(alphabet[character] for character in piece)
    return pieces


def spell(pieces: Iterable[bytes]) -> str:
    """Return the text of the pieces, without space around it; bytes that are no UTF-8 become �."""
    return b"".join(pieces).decode("utf-8", errors="replace").strip()


def _alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for, as in GPT-2."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
