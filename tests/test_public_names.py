"""What `import vfastml` offers."""

from __future__ import annotations

import pytest

import vfastml


@pytest.mark.parametrize("name", [name for name in vfastml.__all__ if name != "__version__"])
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(vfastml, name) is not None
    assert name in dir(vfastml)


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'TextGenerator'"):
        _ = vfastml.TextGenerator
