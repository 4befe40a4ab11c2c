"""How much of a bounded queue one of those who share it may hold."""

_TIMES_FREE = 3


def leaves_room(held: int, more: int, free: int) -> bool:
    """Whether somebody who holds `held` places of a queue may have `more` of them while `free` are free: at most three
    times what is free (Choudhury & Hahne, "Dynamic Queue Length Thresholds", 1998). Alone he gets three quarters of it,
    and whoever comes then finds room; nothing is kept for those who do not come."""
    return held + more <= _TIMES_FREE * free
