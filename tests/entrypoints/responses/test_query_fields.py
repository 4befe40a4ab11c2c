"""Numbers behind the question mark."""

from __future__ import annotations

import pytest

from vfastml.entrypoints.openai.responses.query_fields import whole_number
from vfastml.errors import InvalidRequestError

MOST = (1 << 31) - 1


@pytest.mark.parametrize("number", [0, 5, MOST])
def test_both_bounds_are_taken(number: int) -> None:
    assert whole_number({"after": str(number)}, "after", 7, 0, MOST) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "\u0661", str(MOST + 1), "9" * 5000])
def test_what_is_no_number_between_them_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        whole_number({"after": text}, "after", 7, 0, MOST)
    assert caught.value.message == "'after' must be a whole number from 0 to 2147483647."


def test_left_out() -> None:
    assert whole_number({}, "after", 7, 0, MOST) == 7
