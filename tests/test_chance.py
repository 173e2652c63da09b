"""Numbers drawn by a text stay what they are: shipped splits and kept answers rest on them."""

import pytest

from coursekit.common.chance import drawn_number, drawn_share


def test_the_first_bytes_of_sha256():
    """Of "abc" SHA-256 begins with ba7816bf8f01cfea (FIPS 180-4, the standard's own example)."""
    assert drawn_number("abc") == 0xBA7816BF8F01CFEA
    assert drawn_number("abc", size=4) == 0xBA7816BF
    assert drawn_number("abc", size=1) == 0xBA
    assert drawn_number("abc", size=32) < 256**32
    assert drawn_share("abc") == 0xBA7816BF8F01CFEA / 2**64


def test_any_text():
    assert drawn_number("é") != drawn_number("e") != drawn_number("")


def test_the_spread_is_even():
    shares = [drawn_share(str(number)) for number in range(2000)]
    assert all(0 <= share < 1 for share in shares) and len(set(shares)) == 2000
    for tenth in range(10):
        found = sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) / 2000
        assert found == pytest.approx(0.1, abs=0.03)
