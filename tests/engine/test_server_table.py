import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vfastml.engine.dispatch_replies import Hello, Limits, Load, ServedModel, Status
from vfastml.engine.server_table import ServerState, ServerTable
from vfastml.errors import InternalServerTooBusyError, InvalidRequestError, ModelNotFoundError

HOLD = None
BUSY, INVALID, UNKNOWN = InternalServerTooBusyError, InvalidRequestError, ModelNotFoundError


def hello(*models: str, server_id="s1", protocol=1) -> Hello:
    served = [ServedModel(model, f"org/{model}", [f"{model}-alias"]) for model in models]
    return Hello(protocol, server_id, "text_generation", served, Limits(max_model_len=512), "cpu")


def table_of(*endpoints: str) -> ServerTable:
    return ServerTable(endpoints, protocol=1, now=100.0, max_step_age_s=30.0)


def bring(table: ServerTable, endpoint: str, state: str, *models: str) -> None:
    """Lead a server into a state by the events that lead there."""
    if state == "unseen":
        return
    table.on_joined(endpoint, 100.0)
    if state == "loading":
        return
    if state == "incompatible":
        table.on_hello(endpoint, hello(*models, protocol=2), 100.0)
        return
    if state != "lost before hello":
        table.on_hello(endpoint, hello(*models), 100.0)
    if state.startswith("lost"):
        table.on_lost(endpoint)
    elif state == "draining":
        table.on_goaway(endpoint)
    elif state == "hung":
        table.on_status(endpoint, Status("ready", step_age_s=99.0), 100.0)
        assert table.mark_hung(100.0) == [endpoint]


def outcome(table: ServerTable, name: str | None):
    try:
        return table.pick(name)
    except (BUSY, INVALID, UNKNOWN) as error:
        return type(error)


@pytest.mark.parametrize(
    ("states", "name", "expected"),
    [
        # one server
        (["unseen"], "a", HOLD),
        (["unseen"], None, HOLD),
        (["loading"], "a", HOLD),
        (["live a"], "a", "A"),
        (["live a"], "org/a", "A"),
        (["live a"], "a-alias", "A"),
        (["live a"], None, "A"),
        (["live a"], "x", UNKNOWN),
        (["live a"], "", UNKNOWN),
        (["live a b"], None, INVALID),
        (["live a b"], "b", "A"),
        (["draining a"], "a", BUSY),
        (["draining a"], None, BUSY),
        (["hung a"], "a", BUSY),
        (["lost a"], "a", BUSY),
        (["lost a"], "x", UNKNOWN),
        (["lost before hello"], "a", BUSY),
        (["incompatible a"], "a", BUSY),
        # two servers: the other one decides whether to wait
        (["lost a", "loading"], "a", HOLD),
        (["lost a", "unseen"], "a", HOLD),
        (["lost a", "live a"], "a", "B"),
        (["lost a", "live b"], "a", BUSY),
        (["lost a", "live b"], None, INVALID),
        (["live a", "loading"], "a", "A"),
        (["live a", "loading"], "x", HOLD),
        (["live a", "unseen"], "x", UNKNOWN),
        (["draining a", "unseen"], "x", HOLD),
        (["incompatible a", "live b"], "a", UNKNOWN),
        # three
        (["lost a", "live b", "unseen"], "a", HOLD),
        (["lost a", "live b", "draining c"], "x", UNKNOWN),
    ],
)
def test_pick(states, name, expected):
    table = table_of(*"ABC"[: len(states)])
    for endpoint, spec in zip("ABC", states, strict=False):
        state, *models = ["lost before hello"] if spec == "lost before hello" else spec.split()
        bring(table, endpoint, state, *models)
    assert outcome(table, name) == expected


def test_ties_are_picked_in_turn():
    table = table_of("A", "B", "C")
    for endpoint in "ABC":
        bring(table, endpoint, "live", "a")
    assert [table.pick("a") for _ in range(6)] == list("ABCABC")


def test_the_least_busy_is_picked():
    table = table_of("A", "B")
    for endpoint in "AB":
        bring(table, endpoint, "live", "a")
    table.on_sent("A")
    assert [table.pick("a") for _ in range(2)] == ["B", "B"]
    table.on_status("B", Status("ready", load=Load(waiting=2)), 100.0)
    assert [table.pick("a") for _ in range(2)] == ["A", "A"]
    table.on_ended("A")
    assert table.pick("a", without={"A"}) == "B"
    with pytest.raises(BUSY):
        table.pick("a", without={"A", "B"})


def test_unknown_model_is_not_named():
    table = table_of("A")
    bring(table, "A", "live", "a")
    with pytest.raises(UNKNOWN) as caught:
        table.pick("evil\r\n\x1b\ud800" + "x" * 5000)
    assert "evil" not in caught.value.message


def test_model_id_of_what_was_asked():
    table = table_of("A")
    bring(table, "A", "live", "a", "b")
    assert [table.model_id("A", name) for name in (None, "org/b", "b-alias", "x")] == ["a", "b", "b", None]


def test_models_stay_known_and_are_listed_once():
    table = table_of("A", "B")
    bring(table, "A", "lost", "a")
    bring(table, "B", "live", "a", "b")
    assert [model.id for model in table.models()] == ["a", "b"]
    table.on_lost("B")
    assert [model.id for model in table.models()] == ["a", "b"]


def test_ready_when_each_known_model_has_a_live_server():
    table = table_of("A", "B")
    assert not table.is_ready()
    bring(table, "A", "live", "a")
    assert table.is_ready()
    bring(table, "B", "draining", "a")
    assert table.is_ready()
    bring(table, "B", "lost", "b")
    assert not table.is_ready()


def test_hung_only_when_in_use_and_until_it_moves():
    table = table_of("A", "B", "C")
    bring(table, "A", "live", "a")
    bring(table, "B", "loading")
    assert table.mark_hung(129.0) == []
    assert table.mark_hung(131.0) == ["A"]
    assert table.mark_hung(131.0) == []
    table.on_status("A", Status("ready", step_age_s=31.0), 132.0)
    assert table.state("A") is ServerState.HUNG
    table.on_status("A", Status("ready", step_age_s=0.1), 133.0)
    assert table.state("A") is ServerState.LIVE


def test_draining_is_also_told_by_the_beat_and_is_not_undone():
    table = table_of("A")
    bring(table, "A", "live", "a")
    table.on_status("A", Status("draining"), 101.0)
    table.on_hello("A", hello("a"), 102.0)
    assert table.state("A") is ServerState.DRAINING


def test_hung_while_draining_is_draining_again_and_counts_once():
    table = table_of("A")
    bring(table, "A", "draining", "a")
    assert table.mark_hung(131.0) == ["A"]
    table.on_status("A", Status("draining", step_age_s=40.0), 132.0)
    assert table.mark_hung(133.0) == []
    table.on_status("A", Status("ready", step_age_s=0.0), 134.0)
    assert table.state("A") is ServerState.DRAINING


def test_another_process_is_told_by_its_id():
    table = table_of("A")
    assert not table.is_other_process("A", hello("a"))
    bring(table, "A", "live", "a")
    assert not table.is_other_process("A", hello("a"))
    assert table.is_other_process("A", hello("a", server_id="s2"))
    table.on_lost("A")
    assert not table.is_other_process("A", hello("a", server_id="s2"))


def test_startup_tells_what_is_waited_for():
    table = table_of("A", "B")
    assert (table.startup(103.0).phase, table.startup(103.0).elapsed_s) == ("waiting for a model server", 3.0)
    for endpoint, elapsed_s in (("A", 5.0), ("B", 9.0)):
        table.on_joined(endpoint, 104.0)
        table.on_status(endpoint, Status(f"loading {endpoint}", 0.5, elapsed_s), 105.0)
    startup = table.startup(106.0)
    assert (startup.done, startup.phase, startup.progress, startup.elapsed_s) == (False, "loading B", 0.5, 10.0)
    table.on_hello("A", hello("a"), 107.0)
    assert (table.startup(120.0).done, table.startup(120.0).elapsed_s) == (True, 7.0)
    table.on_lost("A")
    assert table.startup(130.0).done


def test_views():
    table = table_of("A", "B")
    bring(table, "A", "live", "a")
    table.on_sent("A")
    table.on_status("A", Status("ready", None, 50.0, 0.5, Load(running=1)), 101.0)
    live, unseen = table.views(101.25)
    assert (live.state, live.step_age_s, live.open_requests, live.load.running) == ("live", 0.75, 1, 1)
    assert (live.limits.max_model_len, live.device, live.models[0].id) == (512, "cpu", "a")
    assert (unseen.state, unseen.phase, unseen.step_age_s, unseen.models) == ("unseen", "", 0.0, ())


class AnyOrderOfEvents(RuleBasedStateMachine):
    """No order of events breaks the table, and it never picks a server that is not live."""

    endpoints = st.sampled_from("ABC")
    models = st.sampled_from(["a", "b"])

    def __init__(self) -> None:
        super().__init__()
        self.table = table_of("A", "B", "C")
        self.now = 100.0
        self.sent: list[str] = []

    @rule(endpoint=endpoints)
    def joined(self, endpoint):
        self.table.on_joined(endpoint, self.now)

    @rule(endpoint=endpoints, model=models, server_id=st.sampled_from(["s1", "s2"]), protocol=st.sampled_from([1, 2]))
    def hello(self, endpoint, model, server_id, protocol):
        self.table.on_hello(endpoint, hello(model, server_id=server_id, protocol=protocol), self.now)

    @rule(
        endpoint=endpoints,
        phase=st.sampled_from(["ready", "draining", "loading"]),
        age=st.sampled_from([0, 50]),
        waiting=st.integers(0, 3),
    )
    def status(self, endpoint, phase, age, waiting):
        self.table.on_status(endpoint, Status(phase, None, 1.0, float(age), Load(waiting=waiting)), self.now)

    @rule(endpoint=endpoints)
    def goaway(self, endpoint):
        self.table.on_goaway(endpoint)

    @rule(endpoint=endpoints)
    def lost(self, endpoint):
        self.table.on_lost(endpoint)

    @rule(seconds=st.sampled_from([0.2, 40.0]))
    def time_passes(self, seconds):
        self.now += seconds
        for endpoint in self.table.mark_hung(self.now):
            assert self.table.state(endpoint) is ServerState.HUNG

    @rule(name=st.sampled_from([None, "a", "b", "x"]), without=st.sets(endpoints))
    def pick(self, name, without):
        try:
            endpoint = self.table.pick(name, without=without)
        except (BUSY, INVALID, UNKNOWN):
            return
        if endpoint is None:
            return
        assert endpoint not in without
        assert self.table.state(endpoint) is ServerState.LIVE
        assert self.table.model_id(endpoint, name) in {"a", "b"}
        self.table.on_sent(endpoint)
        self.sent.append(endpoint)

    @precondition(lambda self: self.sent)
    @rule()
    def ended(self):
        self.table.on_ended(self.sent.pop())

    @invariant()
    def counts_agree(self):
        views = self.table.views(self.now)
        assert {view.endpoint: view.open_requests for view in views} == {e: self.sent.count(e) for e in "ABC"}
        assert all(view.step_age_s >= 0 for view in views)
        if self.table.is_ready():
            assert self.table.startup(self.now).done


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
