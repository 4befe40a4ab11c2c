"""Who has used up a quota is refused, by what is booked and by what is under way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.engine.fake_server import until
from tests.entrypoints.ledger.observed import ANN, BOB, dispatched, finished, running, served
from tests.entrypoints.ledger.rows import entry
from vfastml.engine.dispatch_replies import Accepted, Delta
from vfastml.engine.dispatch_requests import TokenizeReq
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.quota import Quota, check_ledger_for, quota_of_key, renewal
from vfastml.entrypoints.ledger.books import Books, TokensUsed, utc_now
from vfastml.entrypoints.ledger.key_id import key_id_of
from vfastml.entrypoints.ledger.ledger import Ledger
from vfastml.entrypoints.ledger.quota_guard import QuotaGuard
from vfastml.errors import QuotaLimitError, RequestCancelledError, ServerLostError

PATIENCE_S = 60.0


class Key:
    def __init__(self, quota_tokens: int | None, quota_per: str = "day") -> None:
        self.quota_tokens = quota_tokens
        self.quota_per = quota_per


def anns(tokens: int, per: str = "day"):
    return lambda tenant: Quota(tokens, per) if tenant == ANN else None


def used(ledger: Ledger, tenant: Tenant = ANN, per: str = "day") -> int:
    [guard, _] = ledger.observers
    assert isinstance(guard, QuotaGuard)
    return guard.used(tenant, per, utc_now())


async def test_it_ends_where_it_is_used_up(path: Path) -> None:
    async with running(path, quota_of=anns(20)) as ledger:
        for _ in range(3):  # 9 tokens each: the third is let in at 18
            await until(finished(served(dispatched(ledger))).ended, PATIENCE_S)
        with pytest.raises(QuotaLimitError) as refused:
            dispatched(ledger)
        assert refused.value.message.startswith("This API key has used up its 20 tokens of this day; they renew at 20")
        assert refused.value.message.endswith("T00:00:00Z.")
        assert (refused.value.status, refused.value.code, refused.value.retryable) == (429, "insufficient_quota", False)
        finished(served(dispatched(ledger, tenant=BOB)))
        finished(served(dispatched(ledger, tenant=None)))
        dispatched(ledger, TokenizeReq(request_id="t", prompt="x"))


async def test_what_is_under_way_counts(path: Path) -> None:
    async with running(path, quota_of=anns(20)) as ledger:
        task = dispatched(ledger)
        assert used(ledger) == 0
        task.add_accepted(Accepted(task.request_id, 7))
        task.add_accepted(Accepted(task.request_id, 7))  # it has moved
        assert used(ledger) == 7
        task.add_delta(Delta(task.request_id, text="w", num_tokens=13))
        assert used(ledger) == 20
        with pytest.raises(QuotaLimitError):
            dispatched(ledger)
        task.fail(RequestCancelledError())
        assert used(ledger) == 20
        await until(task.ended, PATIENCE_S)


async def test_each_token_counts_once_whenever_books_are_read(path: Path) -> None:
    """Of requests of all kinds of ends, between readings and commits as they come."""
    async with running(path, quota_of=anns(1 << 40)) as ledger:
        expected = 0
        for number in range(120):
            task = served(dispatched(ledger), prompt=3, generated=2)
            assert used(ledger) == expected + 5
            if number % 3 == 0:
                task.fail(ServerLostError())
                expected += 5
            else:
                finished(task, prompt=4, completion=6)  # the server knows better
                expected += 10
            assert used(ledger) == expected
            await asyncio.sleep(0.02)
            assert used(ledger) == expected
        await until(task.ended, PATIENCE_S)
        refused = dispatched(ledger)
        refused.fail(ServerLostError())
        assert used(ledger) == expected
    assert Books(str(path)).tokens_used(utc_now()).of(key_id_of(ANN), "ever", utc_now()) == expected


async def test_what_others_have_booked_counts(path: Path) -> None:
    now_ms = int(utc_now().timestamp() * 1000)
    others = Books(str(path))
    others.write([entry(key_id=key_id_of(ANN), prompt_tokens=15, ended_ms=now_ms)])
    async with running(path, quota_of=anns(40, "month")) as ledger:
        assert used(ledger, per="month") == 20, "from the start"
        others.write([entry(key_id=key_id_of(ANN), prompt_tokens=15, ended_ms=now_ms)])
        await until(lambda: used(ledger, per="month") == 40, PATIENCE_S)
        with pytest.raises(QuotaLimitError, match="of this month; they renew at"):
            dispatched(ledger)


async def test_none_at_all_and_none_again(path: Path) -> None:
    async with running(path, quota_of=anns(0, "ever")) as ledger:
        with pytest.raises(QuotaLimitError, match="used up its 0 tokens, which are not renewed"):
            dispatched(ledger)


def test_a_new_day_begins_at_midnight() -> None:
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    now = [noon]
    read = TokensUsed(noon, day={key_id_of(ANN): 9}, month={key_id_of(ANN): 9}, ever={key_id_of(ANN): 9})
    guard = QuotaGuard(anns(9), read, lambda: now[0])
    assert guard.used(ANN, "day", noon) == 9
    assert guard.used(ANN, "day", noon + timedelta(hours=11.99)) == 9
    tomorrow = noon + timedelta(hours=12)
    assert [guard.used(ANN, per, tomorrow) for per in ("day", "month", "ever")] == [0, 0, 9]


@pytest.mark.parametrize(
    ("per", "now", "expected"),
    [
        ("day", (2026, 11, 30, 23, 59), "2026-12-01"),
        ("day", (2026, 12, 31, 0, 0), "2027-01-01"),
        ("month", (2026, 12, 31, 23, 0), "2027-01-01"),
        ("month", (2028, 1, 31, 0, 0), "2028-02-01"),
        ("month", (2026, 2, 1, 0, 0), "2026-03-01"),
    ],
)
def test_when_a_quota_renews(per: str, now: tuple[int, ...], expected: str) -> None:
    assert renewal(per, datetime(*now, tzinfo=UTC)) == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert renewal("ever", datetime(*now, tzinfo=UTC)) is None


def test_quotas_need_a_ledger() -> None:
    check_ledger_for([Key(None), Key(None)], None)
    check_ledger_for([Key(5)], "ledger.db")
    with pytest.raises(ValueError, match="give it a file with --ledger"):
        check_ledger_for([Key(None), Key(0)], None)


def test_what_a_key_says_of_its_quota() -> None:
    assert quota_of_key(None) is quota_of_key(Key(None)) is None
    assert quota_of_key(Key(5, "month")) == Quota(5, "month")
    for bad in (Key(-1), Key(1, "year")):
        with pytest.raises(ValueError, match="quota"):
            quota_of_key(bad)
