"""What can be done to the service, each thing with its own end: afterwards all that was down is coming up again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos import hostile
from tests.chaos.crowd import Crowd
from tests.chaos.fleet import Fleet
from tests.chaos.network_faults import Garbled, Late, NetworkFault, Repeated, Sliced, Stalled, Truncated
from tests.chaos.processes import ServiceProcess
from tests.chaos.proxy import ChaosProxy

_DRAIN_S = 40.0
"""A drain ends by itself after 30."""


@dataclass(frozen=True)
class Scene:
    """What a disturbance may touch, and the chance that it decides by."""

    fleet: Fleet
    crowd: Crowd
    chance: random.Random

    @property
    def server(self) -> ServiceProcess:
        """Any of the model servers."""
        return self.chance.choice(self.fleet.servers)

    @property
    def wire(self) -> ChaosProxy:
        """The way to any of them."""
        return self.chance.choice(self.fleet.wires)

    @property
    def wire_port(self) -> int:
        """Of any of them, without the proxy before it."""
        return self.chance.choice(self.fleet.rpc_ports)


Disturbance = Callable[[Scene], Awaitable[None]]

# To processes. One of these goes on at a time.


async def kill_model_server(scene: Scene) -> None:
    """It is started again, now and then with a log that cannot be written, or a clock that jumps."""
    server = scene.server
    server.kill()
    await asyncio.sleep(scene.chance.uniform(0, 1))
    server.start(on_full_disk=scene.chance.random() < 0.3, with_jumping_clock=scene.chance.random() < 0.3)
    await _mostly_recover(scene)


async def freeze_model_server(scene: Scene) -> None:
    server = scene.server
    server.freeze()
    await asyncio.sleep(scene.chance.uniform(0.2, 3))
    server.thaw()


async def drain_model_server(scene: Scene) -> None:
    """It ends by itself when what it has begun is finished."""
    server = scene.server
    server.terminate()
    await server.wait_end(_DRAIN_S)
    server.start()
    await _mostly_recover(scene)


async def kill_gateway(scene: Scene) -> None:
    await _restart_gateway(scene, scene.fleet.gateway.kill)


async def drain_gateway(scene: Scene) -> None:
    await _restart_gateway(scene, scene.fleet.gateway.terminate)


async def freeze_gateway(scene: Scene) -> None:
    scene.fleet.gateway.freeze()
    await asyncio.sleep(scene.chance.uniform(0.2, 2))
    scene.fleet.gateway.thaw()


async def _mostly_recover(scene: Scene) -> None:
    """A start takes seconds: without this nobody would be left to answer for most of the time."""
    if scene.chance.random() < 0.8:
        await scene.fleet.wait_ready()


async def _restart_gateway(scene: Scene, end: Callable[[], None]) -> None:
    fleet = scene.fleet
    fleet.gateway_downtime.begin()
    end()
    await fleet.gateway.wait_end(_DRAIN_S)
    fleet.gateway.start(on_full_disk=scene.chance.random() < 0.3, with_jumping_clock=scene.chance.random() < 0.3)
    await fleet.wait_gateway()
    fleet.gateway_downtime.end()


# To the network.


async def delay_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Late())


async def stall_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Stalled())


async def slice_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Sliced())


async def truncate_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Truncated(scene.chance))


async def garble_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Garbled(scene.chance))


async def repeat_on_wire(scene: Scene) -> None:
    await _suffer(scene, scene.wire, Repeated(scene.chance))


async def reset_wire(scene: Scene) -> None:
    scene.wire.reset()


async def blackhole_wire(scene: Scene) -> None:
    await _swallow(scene, scene.wire)


async def delay_clients(scene: Scene) -> None:
    await _suffer(scene, scene.fleet.clients_way, Late())


async def stall_clients(scene: Scene) -> None:
    await _suffer(scene, scene.fleet.clients_way, Stalled())


async def slice_clients(scene: Scene) -> None:
    await _suffer(scene, scene.fleet.clients_way, Sliced())


async def truncate_clients(scene: Scene) -> None:
    await _suffer(scene, scene.fleet.clients_way, Truncated(scene.chance))


async def reset_clients(scene: Scene) -> None:
    scene.fleet.clients_way.reset()


async def blackhole_clients(scene: Scene) -> None:
    await _swallow(scene, scene.fleet.clients_way)


async def _suffer(scene: Scene, proxy: ChaosProxy, fault: NetworkFault) -> None:
    proxy.suffer(fault)
    await asyncio.sleep(scene.chance.uniform(0.2, 2))
    proxy.heal()


async def _swallow(scene: Scene, proxy: ChaosProxy) -> None:
    proxy.swallow()
    await asyncio.sleep(scene.chance.uniform(0.2, 2))
    proxy.heal()


# By strangers.


async def garbage_http(scene: Scene) -> None:
    await hostile.half_open_clients(scene.fleet.port, scene.chance, 10, 0.05)


async def half_open_clients(scene: Scene) -> None:
    await hostile.half_open_clients(scene.fleet.port, scene.chance, 30, scene.chance.uniform(0.5, 3))


async def garbage_on_wire(scene: Scene) -> None:
    await hostile.garbage_bytes(scene.wire_port, scene.chance, 10)


async def garbage_messages(scene: Scene) -> None:
    await hostile.garbage_messages(scene.wire_port, scene.chance, 50)


async def deaf_gateway(scene: Scene) -> None:
    await hostile.deaf_gateway(scene.wire_port, scene.chance, 6, scene.chance.uniform(0.2, 2))


async def cancel_storm(scene: Scene) -> None:
    await scene.crowd.leave_all(scene.chance, 40)


TRACKS: dict[str, tuple[tuple[Disturbance, int], ...]] = {
    "processes": (
        (kill_model_server, 4),
        (freeze_model_server, 3),
        (drain_model_server, 2),
        (freeze_gateway, 2),
        (kill_gateway, 1),
        (drain_gateway, 1),
    ),
    "network": tuple(
        (fault, 1)
        for fault in (
            delay_wire,
            stall_wire,
            slice_wire,
            truncate_wire,
            garble_wire,
            repeat_on_wire,
            reset_wire,
            blackhole_wire,
            delay_clients,
            stall_clients,
            slice_clients,
            truncate_clients,
            reset_clients,
            blackhole_clients,
        )
    ),
    "strangers": (
        (garbage_http, 1),
        (half_open_clients, 1),
        (garbage_on_wire, 1),
        (garbage_messages, 1),
        (deaf_gateway, 1),
        (cancel_storm, 2),
    ),
}
"""What goes on side by side: in each track one thing after another, chosen with these weights."""
