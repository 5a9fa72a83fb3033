"""The same world, led by hypothesis: it looks for a history that breaks an invariant, and shrinks what it finds."""

from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.db.engine import Database
from tests.simulation.ending import calm_down
from tests.simulation.faults import Fate, Faults
from tests.simulation.layout import Layout
from tests.simulation.observer import Quota
from tests.simulation.trainer import Training
from tests.simulation.world import BAD_FILE, World, open_world

pytestmark = pytest.mark.slow

EXAMPLES = 12
RULES = 20
FATES = [fate for fate in Fate if fate is not Fate.NONE]
LAYOUTS = st.builds(
    Layout,
    dispatchers=st.integers(1, 2),
    node_gpus=st.sampled_from([(0,), (1,), (1, 2)]),
    quotas=st.lists(
        st.builds(Quota, running=st.sampled_from([None, 1]), queued=st.sampled_from([None, 1, 2])),
        min_size=1,
        max_size=2,
    ).map(tuple),
    max_attempts=st.integers(1, 3),
    keeps_ids=st.booleans(),
)
TRAININGS = st.builds(
    Training,
    steps=st.integers(1, 4),
    checkpoint_every=st.integers(1, 3),
    fails_at=st.sampled_from([None, None, None, 1]),
    pauses_at=st.sampled_from([None, None, None, 1]),
)


class Histories(RuleBasedStateMachine):
    database: Database
    world: World

    @initialize(layout=LAYOUTS, seed=st.integers(0, 99))
    def begin(self, layout: Layout, seed: int) -> None:
        self._opened = open_world(self.database, layout, Faults(Random(seed)), Random(seed))
        self.world = self._opened.__enter__()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                calm_down(self.world)
            finally:
                self._opened.__exit__(None, None, None)

    @rule(project=st.integers(0, 1), training=TRAININGS, gpus=st.integers(0, 2), priority=st.integers(0, 1))
    def submit(self, project: int, training: Training, gpus: int, priority: int) -> None:
        self.world.submit(project % len(self.world.layout.quotas), training, gpus=gpus, priority=priority)

    @rule()
    def submit_bad_file(self) -> None:
        self.world.submit(0, Training(1, 1), content=BAD_FILE)

    @rule(number=st.integers(0, 1), seconds=st.sampled_from([0.5, 5.0, 5.0, 40.0]))
    def dispatch(self, number: int, seconds: float) -> None:
        self.world.go_on(self._place(number))
        self.world.advance(seconds=seconds)

    @precondition(lambda self: self.world.observer.seen.jobs)
    @rule(what=st.sampled_from(["cancel", "pause", "resume"]), data=st.data())
    def ask(self, what: str, data: st.DataObject) -> None:
        self.world.ask(what, data.draw(st.sampled_from(sorted(self.world.observer.seen.jobs))))

    @precondition(lambda self: self.world.observer.seen.jobs)
    @rule(data=st.data())
    def delete_file(self, data: st.DataObject) -> None:
        self.world.delete_file_of(data.draw(st.sampled_from(sorted(self.world.observer.seen.jobs))))

    @rule(fate=st.sampled_from(FATES), after_calls=st.integers(0, 30))
    def plan_fault(self, fate: Fate, after_calls: int) -> None:
        self.world.faults.plan(fate, after_calls=after_calls)

    @rule(number=st.integers(0, 1))
    def kill(self, number: int) -> None:
        self.world.kill(self._place(number))

    @rule(number=st.integers(0, 1))
    def give_back(self, number: int) -> None:
        self.world.give_back(self._place(number))

    @rule()
    def restart_with_cluster(self) -> None:
        self.world.restart_with_cluster(self.world.places[0])

    @rule()
    def toggle_store(self) -> None:
        self.world.store.is_away = not self.world.store.is_away

    @rule()
    def toggle_cluster(self) -> None:
        self.world.cluster.is_away = not self.world.cluster.is_away

    @rule(number=st.integers(0, 1), cut_off_s=st.sampled_from([0.0, 30.0]))
    def lose_or_find_node(self, number: int, cut_off_s: float) -> None:
        node = self.world.cluster.nodes[number % len(self.world.cluster.nodes)]
        if node.is_lost:
            self.world.cluster.find_node(node)
        else:
            self.world.cluster.lose_node(node, cut_off_s=cut_off_s)

    @rule()
    def lose_head(self) -> None:
        self.world.cluster.forget_all()

    @rule(number=st.integers(0, 1), seconds=st.sampled_from([-7200.0, -5.0, 60.0, 7200.0]))
    def jump(self, number: int, seconds: float) -> None:
        self.world.jump(self._place(number), seconds=seconds)

    def _place(self, number: int):  # type: ignore[no-untyped-def]
        return self.world.places[number % len(self.world.places)]


def test_no_history_that_hypothesis_finds_breaks_an_invariant(memory_database: Database) -> None:
    machine = type("Machine", (Histories,), {"database": memory_database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=RULES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
