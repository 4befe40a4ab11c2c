from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.merged_deltas import merged, merged_by_choice


def test_the_last_one_says_how_it_ended():
    deltas = (Delta("a", 1, "x", [1], scores=[-0.5]), Delta("a", 1, "yz", [2, 3], "stop", "!", [-1.0, -2.0]))
    assert merged(deltas) == Delta("a", 1, "xyz", [1, 2, 3], "stop", "!", [-0.5, -1.0, -2.0])


def test_what_was_never_given_stays_so():
    assert merged([Delta("a", 0, "x"), Delta("a", 0, "y")]) == Delta("a", 0, "xy")


def test_no_token_is_lost_when_the_last_one_has_none():
    assert merged([Delta("a", 0, "x", [1]), Delta("a", 0, "", None, "length")]) == Delta("a", 0, "x", [1], "length")


def test_choices_stay_apart():
    deltas = [Delta("a", 1, "x"), Delta("a", 0, "1"), Delta("a", 1, "y"), Delta("a", 0, "2", finish_reason="stop")]
    assert merged_by_choice(deltas) == [Delta("a", 1, "xy"), Delta("a", 0, "12", finish_reason="stop")]
    assert merged_by_choice([]) == []
