"""The pure core: what must hold for every fleet and every batch."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.routing import checks, router
from container_manager.routing.advice import advise
from container_manager.routing.checks import Check
from container_manager.routing.reasons import refusal
from container_manager.routing.types import HostState, JobClass, JobRequest, JobRequirements, Verdict

KINDS, REGIONS = ["docker", "cloudrun", "simulated"], ["eu", "us", ""]


def host(number: int = 1, **changes: object) -> HostState:
    values = {
        "id": number, "name": f"host-{number}", "executor_type": "docker", "region": "eu", "labels": {}, "weight": 100,
        "is_active": True, "is_draining": False, "health": "healthy", "only_preferred": False,
        "max_jobs": 10, "max_memory": None, "max_cpu": None,
    }  # fmt: skip
    return HostState(**(values | changes))


@st.composite
def fleets(draw: st.DrawFn) -> list[HostState]:
    limit = st.one_of(st.none(), st.integers(0, 2000))
    return [
        host(
            number,
            executor_type=draw(st.sampled_from(KINDS)),
            region=draw(st.sampled_from(REGIONS)),
            labels=draw(st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)),
            weight=draw(st.sampled_from([0, 1, 10, 1000])),
            is_active=draw(st.integers(0, 9)) > 0,
            is_draining=draw(st.integers(0, 9)) == 0,
            health=draw(st.sampled_from(["healthy"] * 4 + ["unhealthy", "unknown"])),
            only_preferred=draw(st.integers(0, 4)) == 0,
            max_jobs=draw(st.integers(0, 6)),
            max_memory=draw(limit),
            max_cpu=draw(limit),
            ejected=draw(st.integers(0, 9)) == 0,
            cooling=draw(st.integers(0, 9)) == 0,
            grants=draw(st.sampled_from([(), ("user",), ("cloudrun: size",), ("*",)])),
            jobs=draw(st.integers(0, 3)),
            memory=draw(st.integers(0, 800)),
            cpu=draw(st.integers(0, 800)),
        )
        for number in range(1, draw(st.integers(0, 8)) + 1)
    ]


@st.composite
def batches(draw: st.DrawFn) -> list[JobRequest]:
    needs = st.builds(
        JobRequirements,
        memory=st.sampled_from([0, 64, 500, 3000]),
        cpu=st.sampled_from([0, 100, 1000]),
        preferred_executor=st.sampled_from(["", *KINDS]),
        executor_required=st.booleans(),
        region_preference=st.sampled_from(REGIONS),
        region_required=st.booleans(),
        selector=st.sampled_from([(), (("a", "x"),), (("a", "x"), ("b", "y"))]),
        strategy=st.sampled_from(["weighted", "balanced", "packed"]),
        priority=st.integers(0, 2),
        grants=st.sampled_from([(), (), ("user",), ("cloudrun: size",)]),
        failed_hosts=st.sampled_from([(), (), (1,), (2, 3)]),
        unfit_hosts=st.sampled_from([(), (), (1,), (3,)]),
    )
    classes = draw(st.lists(needs, min_size=1, max_size=6))
    return [JobRequest(age, age, draw(st.sampled_from(classes))) for age in range(draw(st.integers(1, 25)))]


@settings(max_examples=150, deadline=None)
@given(fleets(), batches(), st.integers(0, 2**63))
def test_no_batch_breaks_a_rule(fleet: list[HostState], batch: list[JobRequest], seed: int) -> None:
    decisions = router.decide(fleet, batch, seed)
    assert sorted(decision.key for decision in decisions) == [job.key for job in batch]
    jobs = {job.key: job for job in batch}
    taken: defaultdict[int, list[JobRequirements]] = defaultdict(list)
    for decision in decisions:
        needs = jobs[decision.key].requirements
        if decision.host is None:
            assert decision.verdict is not Verdict.FEASIBLE
            assert not any(checks.feasible(used(state, taken), needs) for state in fleet), "refused although it fits"
            assert (decision.verdict is Verdict.NEVER) == (bool(fleet) and not any(could_ever(s, needs) for s in fleet))
            continue
        before = {state.id: used(state, taken) for state in fleet}
        assert checks.feasible(before[decision.host.id], needs), "placed where it does not fit"
        better = [s for s in before.values() if checks.feasible(s, needs)]
        assert router.tier(decision.host, needs) == min(router.tier(s, needs) for s in better), "a tier was skipped"
        if needs.strategy == "balanced":
            rivals = [s for s in better if router.tier(s, needs) == router.tier(decision.host, needs)]
            assert score(before[decision.host.id]) == min(map(score, rivals))
        taken[decision.host.id].append(needs)
    for state in fleet:
        if taken[state.id]:
            assert_within_limits(used(state, taken))
    assert [d.host for d in router.decide(fleet, batch, seed)] == [d.host for d in decisions], "not repeatable"


@settings(max_examples=100, deadline=None)
@given(fleets(), batches(), st.integers(0, 2**63), st.integers(1, 8), st.integers(0, 2))
def test_kept_room_goes_to_its_job_or_to_those_above(
    fleet: list[HostState], batch: list[JobRequest], seed: int, kept: int, priority: int
) -> None:
    fleet = [state._replace(reserved_priority=priority) if state.id == kept else state for state in fleet]
    holder = JobRequest(-1, -1, JobRequirements(memory=500, priority=priority, reserved_host=kept))
    decisions = {decision.key: decision for decision in router.decide(fleet, [holder, *batch], seed)}
    free = fleet if decisions[-1].host is None else None
    for job in batch:
        decision = decisions[job.key]
        if decision.host is not None and decision.host.id == kept and free is not None:
            assert job.requirements.priority > priority
        if decision.host is None and free is not None:
            # The one reservation may refuse what brute force would place, and nothing else may.
            full = [d.host.id for d in decisions.values() if d.host is not None]
            assert not any(
                checks.feasible(state, job.requirements) and state.id not in full and state.id != kept
                for state in fleet
            )
    for state in fleet:
        mine = [job.requirements for job in batch if (host := decisions[job.key].host) and host.id == state.id]
        mine += [holder.requirements] if (host := decisions[-1].host) and host.id == state.id else []
        if mine:
            assert_within_limits(used(state, {state.id: mine}))


@settings(max_examples=200, deadline=None)
@given(fleets(), batches())
def test_each_suggestion_works_when_it_is_followed(fleet: list[HostState], batch: list[JobRequest]) -> None:
    for job in batch[:5]:
        needs = job.requirements
        suggestions = advise(fleet, needs)
        if any(checks.feasible(state, needs) for state in fleet):
            assert suggestions == []
        for suggestion in suggestions:
            changed = [suggestion.changed if suggestion.changed and s.id == suggestion.changed.id else s for s in fleet]
            (decision,) = router.decide(changed, [JobRequest(1, 1, suggestion.requirements)], 0)
            assert decision.host is not None, suggestion
            assert suggestion.hosts == sum(checks.feasible(state, suggestion.requirements) for state in changed)
            if ", and " not in suggestion.message:
                assert (suggestion.requirements == needs) != (suggestion.changed is None), "more than one change"


@settings(max_examples=100, deadline=None)
@given(fleets(), batches(), st.integers(0, 2**63))
def test_a_decision_follows_from_its_record(fleet: list[HostState], batch: list[JobRequest], seed: int) -> None:
    for decision in router.decide(fleet, batch, seed):
        record = decision.evaluation
        again = router.evaluate(record.hosts, record.requirements, record.seed)
        assert again == record
        placed = router.choose(again, decision.position + 1)
        assert [record.hosts[at].id for at in placed[decision.position :]] == (
            [decision.host.id] if decision.host else []
        )


def used(state: HostState, taken: dict[int, list[JobRequirements]]) -> HostState:
    mine = taken[state.id]
    return state._replace(
        jobs=state.jobs + len(mine),
        memory=state.memory + sum(needs.memory for needs in mine),
        cpu=state.cpu + sum(needs.cpu for needs in mine),
    )


def could_ever(state: HostState, needs: JobRequirements) -> bool:
    ideal = state._replace(
        is_active=True, is_draining=False, health="healthy", ejected=False, cooling=False,
        reserved_priority=None,
        jobs=0, memory=0, cpu=0,
    )  # fmt: skip
    return checks.feasible(ideal, needs)


def score(state: HostState) -> float:
    return (state.jobs + 0.5) / (state.weight or 1)


def assert_within_limits(state: HostState) -> None:
    assert state.jobs <= state.max_jobs
    assert state.max_memory is None or state.memory <= state.max_memory
    assert state.max_cpu is None or state.cpu <= state.max_cpu


def test_priority_comes_before_age() -> None:
    jobs = [JobRequest(1, 1, JobRequirements()), JobRequest(2, 2, JobRequirements(priority=5))]
    placed = router.decide([host(max_jobs=1)], jobs, 0)
    assert [decision.key for decision in placed if decision.host] == [2]


def test_within_a_class_the_oldest_comes_first() -> None:
    jobs = [JobRequest(key, age, JobRequirements()) for key, age in ((1, 30), (2, 10), (3, 20))]
    placed = router.decide([host(max_jobs=2)], jobs, 0)
    assert [decision.key for decision in placed if decision.host] == [2, 3]


def test_a_large_job_that_cannot_run_does_not_block_others() -> None:
    jobs = [JobRequest(1, 1, JobRequirements(memory=9999, priority=9)), JobRequest(2, 2, JobRequirements(memory=10))]
    by_key = {d.key: d for d in router.decide([host(max_memory=100)], jobs, 0)}
    assert by_key[1].host is None
    assert by_key[2].host is not None


def test_weights_hold_within_a_batch() -> None:
    fleet = [
        host(1, weight=10, max_jobs=10_000),
        host(2, weight=30, max_jobs=10_000),
        host(3, weight=60, max_jobs=10_000),
    ]
    batch = [JobRequest(n, n, JobRequirements()) for n in range(6000)]
    counts = Counter(d.host.id for d in router.decide(fleet, batch, 7))
    for number, share in ((1, 0.1), (2, 0.3), (3, 0.6)):
        # Five standard deviations of a binomial.
        assert abs(counts[number] - 6000 * share) < 5 * (6000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(
    ("changes", "needs", "code", "verdict"),
    [
        ({"is_active": False}, {}, "INACTIVE", "NOT_NOW"),
        ({"is_draining": True}, {}, "DRAINING", "NOT_NOW"),
        ({"health": "unhealthy"}, {}, "UNHEALTHY", "NOT_NOW"),
        ({"health": "unknown"}, {}, "HEALTH_UNKNOWN", "NOT_NOW"),
        ({}, {"preferred_executor": "cloudrun", "executor_required": True}, "EXECUTOR_TYPE", "NEVER"),
        ({"only_preferred": True}, {"preferred_executor": "cloudrun"}, "EXECUTOR_TYPE", "NEVER"),
        ({}, {"region_preference": "us", "region_required": True}, "REGION", "NEVER"),
        ({"labels": {"a": "x"}}, {"selector": (("a", "y"),)}, "SELECTOR", "NEVER"),
        ({"ejected": True}, {}, "EJECTED", "NOT_NOW"),
        ({"cooling": True}, {}, "COOLDOWN", "NOT_NOW"),
        ({"grants": ("user",)}, {"grants": ("user", "network n")}, "EXECUTOR_LIMITS", "NEVER"),
        ({"executor_type": "cloudrun"}, {"grants": ("cloudrun: size",)}, "EXECUTOR_LIMITS", "NEVER"),
        ({"reserved_priority": 0}, {}, "RESERVED", "NOT_NOW"),
        ({"reserved_priority": 5}, {"priority": 5}, "RESERVED", "NOT_NOW"),
        ({"jobs": 10}, {}, "SLOTS", "NOT_NOW"),
        ({"max_jobs": 0}, {}, "SLOTS", "NEVER"),
        ({"max_memory": 100, "memory": 60}, {"memory": 50}, "MEMORY", "NOT_NOW"),
        ({"max_memory": 100}, {"memory": 101}, "MEMORY", "NEVER"),
        ({"max_cpu": 1000, "cpu": 600}, {"cpu": 500}, "CPU", "NOT_NOW"),
        ({"max_cpu": 1000}, {"cpu": 1001}, "CPU", "NEVER"),
    ],
)
def test_each_check_says_what_it_found(changes: dict, needs: dict, code: str, verdict: str) -> None:
    job = JobRequirements(**needs)
    (decision,) = router.decide([host(**changes)], [JobRequest(1, 1, job)], 0)
    assert decision.host is None
    assert decision.verdict.name == verdict
    assert decision.evaluation.rejections() == {code: 1}
    assert f"{code} 1" in decision.reason
    explained = checks.explain(host(**changes), job, decision.evaluation.codes, decision.evaluation.results(0))
    (failed,) = [check for check in explained if not check.passed]
    assert (failed.code, failed.verdict.name) == (code, verdict)
    assert failed.message == f"needs {failed.needed}; found {failed.available}"
    assert len(explained) == len(checks.CHECKS)


def test_memory_is_explained_in_numbers() -> None:
    check = next(check for check in checks.CHECKS if check.code == "MEMORY")
    result = check.explain(host(max_memory=256, memory=200), JobRequirements(memory=512))
    assert result.message == "needs 512 MiB; found 56 MiB free of 256 MiB"


def test_an_empty_fleet_is_not_now() -> None:
    (decision,) = router.decide([], [JobRequest(1, 1, JobRequirements())], 0)
    assert decision.verdict is Verdict.NOT_NOW
    assert "no host yet" in decision.reason


def test_reasons_say_how_the_host_was_chosen() -> None:
    def why(fleet: list[HostState], **needs: object) -> str:
        return router.decide(fleet, [JobRequest(1, 1, JobRequirements(**needs))], 0)[0].reason

    two = [host(1), host(2, weight=50)]
    assert "by weight" in why(two)
    assert "of 150 among 2; 2 of 2 hosts fit." in why(two)
    assert why([host()]) == "The only choice; 1 of 1 hosts fit."
    assert why(two, preferred_executor="docker").startswith("Preferred executor docker. Drawn")
    assert why(two, preferred_executor="cloudrun").startswith("No cloudrun host could take it, so docker instead.")
    assert why(two, region_preference="eu").startswith("Region eu as preferred.")
    assert why(two, region_preference="us").startswith("No room in region us.")
    assert "The least load for its weight" in why(two, strategy="balanced")
    assert "The fullest that fits" in why(two, strategy="packed")
    assert "equal chance" in why([host(1, weight=0), host(2, weight=0)])


def test_hosts_that_have_failed_the_job_are_tried_after_all_others_of_the_same_preference() -> None:
    def chosen(fleet: list[HostState], **needs: object) -> int:
        (decision,) = router.decide(fleet, [JobRequest(1, 1, JobRequirements(failed_hosts=(1, 9), **needs))], 0)
        return decision.host.id

    assert chosen([host(1, weight=1000), host(2, weight=1)]) == 2
    assert chosen([host(1), host(2, weight=0)]) == 2
    assert chosen([host(1), host(2, region="us")], region_preference="eu") == 1
    assert chosen([host(1), host(2, executor_type="cloudrun")], preferred_executor="docker") == 1
    assert chosen([host(1), host(2, max_jobs=0)]) == 1
    (decision,) = router.decide([host(1)], [JobRequest(1, 1, JobRequirements(failed_hosts=(1,)))], 0)
    assert decision.reason.startswith("Each host that could take it now has failed it before. The only choice")


def test_a_host_that_lacks_what_the_job_needs_never_takes_it() -> None:
    needs = JobRequirements(unfit_hosts=(1,))
    (decision,) = router.decide([host(1), host(2)], [JobRequest(1, 1, needs)], 0)
    assert decision.host.id == 2
    (decision,) = router.decide([host(1)], [JobRequest(1, 1, needs)], 0)
    assert (decision.host, decision.verdict) == (None, Verdict.NEVER)
    assert decision.evaluation.rejections() == {"HOST_LACKS": 1}


def test_a_record_from_before_a_check_was_added_is_decided_again_without_it() -> None:
    before = router.evaluate([host(1), host(2)], JobRequirements(), 7, {"SLOTS", "MEMORY"})
    assert before.codes == ("SLOTS", "MEMORY")
    assert router.evaluate(before.hosts, before.requirements, before.seed, before.codes) == before


def test_a_registered_check_takes_part_in_every_decision() -> None:
    check = Check(
        "ODD",
        lambda _: None,
        lambda state, _: int(state.id % 2),
        lambda _: "an even host",
        lambda state: f"host {state.id}",
    )
    checks.register(check)
    try:
        with pytest.raises(ValueError, match="ODD is registered already"):
            checks.register(check)
        (decision,) = router.decide([host(1), host(2)], [JobRequest(1, 1, JobRequirements())], 0)
        assert decision.host.id == 2
        assert decision.evaluation.rejections() == {"ODD": 1}
        recorded = decision.evaluation
    finally:
        checks.CHECKS.remove(check)
    explained = checks.explain(recorded.hosts[0], recorded.requirements, recorded.codes, recorded.results(0))
    assert explained[-1].message == "recorded by a check that is no longer registered"
    assert explained[-1].verdict is Verdict.NOT_NOW


# ------------------------------------------------------------------ advice, in words


def suggestions(fleet: list[HostState], **needs: object) -> list[str]:
    return [suggestion.message for suggestion in advise(fleet, JobRequirements(**needs))]


@pytest.mark.parametrize(
    ("changes", "needs", "message"),
    [
        ({"max_memory": 900, "memory": 100}, {"memory": 2048}, "Ask for 800 MiB of memory instead of 2048."),
        ({"max_memory": 900, "memory": 100}, {"memory": 2048}, "Raise maxMemoryMb of host host-1 to 2148."),
        ({"max_cpu": 1500}, {"cpu": 4000}, "Ask for 1.5 cores instead of 4 cores."),
        ({"max_cpu": 1500}, {"cpu": 4000}, "Raise maxCpuCores of host host-1 to 4."),
        ({}, {"region_preference": "us", "region_required": True}, "Require region eu instead of us."),
        ({}, {"region_preference": "us", "region_required": True}, "Do not require region us."),
        ({}, {"preferred_executor": "cloudrun", "executor_required": True}, "Do not require executor cloudrun."),
        (
            {},
            {"preferred_executor": "cloudrun", "executor_required": True},
            "Require executor docker instead of cloudrun.",
        ),
        ({"max_cpu": 1000567}, {"cpu": 2000000}, "Ask for 1000.567 cores instead of 2000 cores."),
        ({"ejected": True}, {}, "Resume host host-1, if its launches succeed again."),
        ({"cooling": True}, {}, "Resume host host-1, if its quota allows it again."),
        (
            {"executor_type": "cloudrun"},
            {"grants": ("cloudrun: a read-only root",)},
            "Do not ask for a read-only root.",
        ),
        ({}, {"grants": ("user",)}, "Do not ask for user."),
        ({"labels": {"a": "x"}}, {"selector": (("a", "x"), ("b", "y"))}, "Drop b=y from the host selector."),
        ({}, {"selector": (("a", "x"), ("b", "y"))}, "Drop the host selector."),
        ({"reserved_priority": 3}, {}, "Raise the priority from 0 to 4."),
        ({"is_draining": True}, {}, "Resume host host-1."),
        ({"is_active": False}, {}, "Activate host host-1."),
        ({"health": "unhealthy"}, {}, "Bring host host-1 back to health."),
        ({"jobs": 10}, {}, "Raise maxConcurrentJobs of host host-1 to 11."),
    ],
)
def test_advice_names_the_change(changes: dict, needs: dict, message: str) -> None:
    assert message in suggestions([host(**changes)], **needs)


def test_advice_takes_the_smallest_change() -> None:
    fleet = [host(1, max_memory=512), host(2, max_memory=1024, memory=200), host(3, max_memory=2048, memory=2040)]
    assert suggestions(fleet, memory=1000) == [
        "Ask for 824 MiB of memory instead of 1000.",
        "Raise maxMemoryMb of host host-2 to 1200.",
    ]


def test_advice_is_only_what_can_be_done() -> None:
    assert suggestions([host(only_preferred=True)]) == [], "who did not ask for a simulation is not sent there"
    assert suggestions([host(max_memory=2**31 - 1, memory=2**31 - 1)], memory=2**30) == []


def test_two_changes_are_advised_where_one_is_not_enough() -> None:
    assert suggestions([host(is_draining=True, health="unhealthy")]) == [
        "Resume host host-1, and bring host host-1 back to health."
    ]
    fleet = [host(1, region="us", max_memory=512), host(2, is_active=False, is_draining=True, health="unknown")]
    assert suggestions(fleet, memory=1000, region_preference="eu", region_required=True) == [
        "Ask for 512 MiB of memory instead of 1000, and require region us instead of eu.",
        "Ask for 512 MiB of memory instead of 1000, and do not require region eu.",
        "Raise maxMemoryMb of host host-1 to 1000, and require region us instead of eu.",
    ]


def test_there_is_no_advice_where_two_changes_are_not_enough() -> None:
    assert suggestions([], memory=10) == []
    assert suggestions([host(is_draining=True, health="unhealthy", is_active=False)]) == []


def test_a_refusal_names_the_labels_that_no_host_has() -> None:
    def said(*selector: tuple[str, str]) -> str:
        fleet = [host(1, labels={"disk": "ssd", "gpu": "a100"}), host(2, labels={"disk": "hdd", "gpu": "h100"})]
        return refusal(router.evaluate(fleet, JobRequirements(selector=selector)))

    assert said(("disk", "ssd"), ("zone", "b")).endswith(" SELECTOR 2. No host has the label zone=b.")
    assert said(("zone", "b"), ("disk", "tape")).endswith(" No host has the label zone=b or disk=tape.")
    assert said(("disk", "ssd"), ("gpu", "h100")).endswith(" No host has all labels of its selector.")


# ------------------------------------------------------------------ the one reservation


def test_room_is_kept_where_the_least_must_become_free() -> None:
    fleet = [
        host(1, max_memory=1000, memory=900),
        host(2, max_memory=1000, memory=600),
        host(3, max_memory=1000, memory=0, is_draining=True),
        host(4, max_memory=400),
    ]
    refused = router.evaluate(fleet, JobRequirements(memory=500))
    assert router.host_to_reserve(refused).id == 2
    assert router.host_to_reserve(refused, {1}).id == 1
    assert router.host_to_reserve(refused, {3, 4}) is None


def test_a_placed_holder_leaves_the_rest_of_its_host_to_others() -> None:
    holder = JobRequest(1, 1, JobRequirements(memory=60, reserved_host=1))
    other = JobRequest(2, 2, JobRequirements(memory=40))
    fleet = [host(1, max_memory=100, reserved_priority=0)]
    assert [d.host is not None for d in router.decide(fleet, [holder, other], 0)] == [True, True]
    assert [d.host for d in router.decide(fleet, [other], 0)] == [None]


def test_only_the_oldest_are_read_of_a_class_that_has_no_room_for_all() -> None:
    asked = []

    def members(count: int) -> list[int]:
        asked.append(count)
        return list(range(min(count, 100_000)))

    (outcome,) = router.decide_classes(router.Fleet([host(max_jobs=3)], 0), [JobClass(JobRequirements(), 0, members)])
    assert [decision.key for decision in outcome.placed] == [0, 1, 2]
    assert outcome.refused is not None
    assert max(asked) == 4
    asked.clear()
    list(router.decide_classes(router.Fleet([host(max_jobs=0)], 0), [JobClass(JobRequirements(), 0, members)]))
    assert asked == []


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(0, 2**63))
def test_a_kept_fleet_decides_as_a_new_one_does(data: st.DataObject, seed: int) -> None:
    drawn = [state for fleet in data.draw(st.lists(fleets(), min_size=4, max_size=8)) for state in fleet]
    usable = {"is_active": True, "is_draining": False, "health": "healthy", "max_jobs": 4}
    hosts = [state._replace(id=at, name=f"host-{at}", **usable) for at, state in enumerate(drawn)]
    classes = data.draw(st.lists(batches().map(lambda jobs: jobs[0].requirements), min_size=1, max_size=3))
    kept = router.Fleet(hosts, seed, kept=True)
    for step in range(data.draw(st.integers(1, 15))):
        if hosts and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(hosts) - 1))
            kept.replace(at, kept.hosts[at]._replace(weight=data.draw(st.sampled_from([0, 3])), jobs=0))
        needs = data.draw(st.sampled_from(classes))
        keys = list(range(data.draw(st.integers(1, 3))))
        before = list(kept.hosts)
        outcome = kept.decide(JobClass(needs, step, lambda count, keys=keys: keys[:count]))
        fresh = router.evaluate(before, needs)
        assert len(outcome.placed) == min(len(keys), router.room(fresh))
        for decision in outcome.placed:
            assert decision.evaluation.columns == fresh.columns
        if outcome.placed:
            evaluation, groups = outcome.placed[0].evaluation, router.tiers(fresh)
            chosen = router.choose(evaluation, len(outcome.placed))
            assert [decision.host for decision in outcome.placed] == [before[at] for at in chosen]
            for decision, at in zip(outcome.placed, chosen, strict=True):
                rivals = groups[router.tier(before[at], needs)]
                assert f"{sum(map(len, groups.values()))} of {len(hosts)} hosts fit" in decision.reason
                assert f"among {len(rivals)};" in decision.reason or len(rivals) == 1
                if needs.strategy == "weighted" and before[at].weight and len(rivals) > 1:
                    assert f"of {sum(before[rival].weight for rival in rivals)} among" in decision.reason
        kept.forget()


def test_a_kept_fleet_forgets_old_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_CHANGES", "MOST_COLUMNS", "MOST_STANDINGS"):
        monkeypatch.setattr(router, name, 3)
    fleet = router.Fleet([host(number, max_jobs=1000) for number in range(1, 30)], 0, kept=True)
    for memory in range(100):
        before, version = list(fleet.hosts), fleet.version
        (decision,) = fleet.decide(JobClass(JobRequirements(memory=memory % 5), 0, lambda count: [1])).placed
        assert router.choose(decision.evaluation, 1) == [before.index(decision.host)]
        fleet.forget()
        assert len(fleet._changed) <= 3 + 29
    assert fleet.changed_since(0) is None
    assert fleet.changed_since(version) in ({before.index(decision.host)}, None)
    assert (len(fleet._columns), len(fleet._standings)) == (3, 3)
