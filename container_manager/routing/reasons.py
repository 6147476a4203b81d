"""Decisions as sentences for people."""

from collections.abc import Mapping

from container_manager.routing.types import Evaluation, HostState, JobRequirements, Verdict


def reasons(evaluation: Evaluation, rivals: Mapping[int, tuple[int, int]], feasible: int) -> dict[int, str]:
    """One sentence for each chosen host, by its index in the evaluation.

    `rivals`: the number of hosts in the tier of each chosen host, and the sum of their weights.
    `feasible`: how many hosts passed every check.
    """
    job, hosts = evaluation.requirements, evaluation.hosts
    scope = f"{feasible} of {len(hosts)} hosts fit."
    return {
        at: f"{_preferences(job, hosts[at])}{_choice(job, hosts[at], *found)}; {scope}" for at, found in rivals.items()
    }


def refusal(evaluation: Evaluation) -> str:
    """One sentence that says why no host was chosen."""
    if not evaluation.hosts:
        return "There is no host yet; create one and the job will be routed to it."
    counts = ", ".join(f"{code} {count}" for code, count in evaluation.rejections().items())
    never = evaluation.verdict() is Verdict.NEVER
    what = "No host could ever take this job" if never else "No host can take this job now"
    missing = _missing_labels(evaluation)
    kept = " The room of one host is reserved for it." if evaluation.requirements.reserved_host is not None else ""
    return f"{what}; of {len(evaluation.hosts)} hosts these checks fail: {counts}.{missing}{kept}"


def _missing_labels(evaluation: Evaluation) -> str:
    """What of the selector no host has, when it fails for all of them."""
    hosts, selector = evaluation.hosts, evaluation.requirements.selector
    if evaluation.rejections().get("SELECTOR") != len(hosts):
        return ""
    missing = [f"{key}={value}" for key, value in selector if all(host.labels.get(key) != value for host in hosts)]
    if not missing:
        return " No host has all labels of its selector."
    return f" No host has the label {' or '.join(missing)}."


def _preferences(job: JobRequirements, host: HostState) -> str:
    parts = []
    if job.preferred_executor:
        met = host.executor_type == job.preferred_executor
        parts.append(
            f"Preferred executor {job.preferred_executor}"
            if met
            else f"No {job.preferred_executor} host could take it, so {host.executor_type} instead"
        )
    if job.region_preference:
        met = host.region == job.region_preference
        parts.append(f"Region {host.region} as preferred" if met else f"No room in region {job.region_preference}")
    if host.id in job.failed_hosts:
        parts.append("Each host that could take it now has failed it before")
    return "".join(f"{part}. " for part in parts)


def _choice(job: JobRequirements, host: HostState, rivals: int, weight: int) -> str:
    if rivals == 1:
        return "The only choice"
    if job.strategy == "balanced":
        return f"The least load for its weight among {rivals}"
    if job.strategy == "packed":
        return f"The fullest that fits among {rivals}"
    share = f"weight {host.weight} of {weight}" if weight else "equal chance, all weights being 0"
    return f"Drawn by {share} among {rivals}"
