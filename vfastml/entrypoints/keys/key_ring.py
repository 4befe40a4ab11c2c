"""The keys that open a gateway. They can be added, changed and revoked in their file while it runs."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.api_key import ApiKey, digest_of, nameless_key
from vfastml.entrypoints.keys.key_file import read_keys
from vfastml.utils.file_stamp import file_stamp
from vfastml.utils.rare_warning import RareWarning

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the file is looked at."""


@dataclass(frozen=True, slots=True)
class _Held:
    key: ApiKey
    tenant: Tenant


class KeyRing:
    """Those of `keys`, which stay, and those of the `file`, which is looked at again by `watch`. Without either it is
    open: everybody may come in, with any token or none. A file that has lost its last key opens nothing.

    Raises KeyFileError when the file cannot be read at first, or what `check` raises, a ValueError, when it holds what
    cannot be kept; later that is only logged, and the keys of before stay.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        file: str | None = None,
        check: Callable[[Sequence[ApiKey]], None] = lambda _: None,
    ) -> None:
        self.is_open = not keys and file is None
        self._fixed = tuple(map(nameless_key, keys))
        self._file = file
        self._seen = None if file is None else file_stamp(file)
        self._check = check
        self._unreadable = RareWarning(logger)
        self._held = self._all_with(() if file is None else self._read(file))

    def owner(self, candidate: bytes) -> Tenant | None:
        """Whose key was offered, or None. All keys are always compared: timing tells nothing."""
        offered = digest_of(candidate)
        found = [held for held in self._held.values() if hmac.compare_digest(offered, held.tenant.secret)]
        return found[0].tenant if found else None

    def key_of(self, tenant: Tenant) -> ApiKey | None:
        """The tenant's key as it stands now; None if it is revoked."""
        held = self._held.get(tenant.secret)
        return held.key if held else None

    def is_admin(self, candidate: bytes) -> bool | None:
        """Whether that is an operator's key, found out as `owner` does; None: no key is."""
        if not any(held.key.admin for held in self._held.values()):
            return None
        owner = self.owner(candidate)
        key = None if owner is None else self.key_of(owner)
        return key is not None and key.admin

    def all_keys(self) -> list[ApiKey]:
        """All that there are."""
        return [held.key for held in self._held.values()]

    def reload(self) -> list[Tenant]:
        """Read the file again, if it has changed. Returns those whose keys are there no more."""
        if self._file is None or (stamp := file_stamp(self._file)) == self._seen:
            return []
        # Taken before it was read: whatever is written meanwhile is another change.
        self._seen = stamp
        try:
            keys = read_keys(self._file)
        except ValueError as error:
            if stamp is not None and isinstance(error.__cause__, OSError):  # it may be right, and readable in a moment
                self._seen = None
                self._unreadable.warn("API keys stay as they were for now, and nothing is revoked: %s.", error)
            else:
                logger.error("API keys stay as they were, and nothing is revoked: %s.", error)
            return []
        before, self._held = self._held, self._settled(self._all_with(keys))
        gone = [held.tenant for secret, held in before.items() if secret not in self._held]
        logger.info("API keys have been read again: there are %d, and revoked: %d.", len(self._held), len(gone))
        if not self._held:
            logger.warning("No API key is left: nobody gets in.")
        return gone

    def _settled(self, found: dict[bytes, _Held]) -> dict[bytes, _Held]:
        """Those to be held from now on. If this gateway cannot do what the file's keys ask for, those that are not in
        it are revoked all the same."""
        try:
            self._check([held.key for held in found.values()])
        except ValueError as error:
            logger.error("In %s %s. Until then keys are revoked, and none is added or changed.", self._file, error)
            return {secret: held for secret, held in self._held.items() if secret in found}
        return found

    async def watch(self, on_revoked: Callable[[Tenant], None]) -> None:
        """Read the file, if there is one, again whenever it has changed, and tell of each key that is gone."""
        while self._file is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                # In a thread: the file may be on a disk that is slow to answer.
                for tenant in await asyncio.to_thread(self.reload):
                    on_revoked(tenant)
            except Exception:  # whoever looks no more revokes nothing
                logger.exception("The key file could not be looked at.")

    def _read(self, file: str) -> Sequence[ApiKey]:
        keys = read_keys(file)
        self._check(keys)
        return keys

    def _all_with(self, keys: Iterable[ApiKey]) -> dict[bytes, _Held]:
        # What the file says of a key wins: it says more.
        held = [_Held(key, key.tenant()) for key in (*self._fixed, *keys)]
        return {one.tenant.secret: one for one in held}
