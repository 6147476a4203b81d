"""A Cloud Run job in Google's terms."""

from datetime import timedelta

from google.cloud import run_v2

from container_manager.executors.base import LABEL, LaunchSpec
from container_manager.executors.configs import CloudRunConfig, Vpc

MEMORY = run_v2.EmptyDirVolumeSource.Medium.MEMORY


def job_template(spec: LaunchSpec, size: tuple[int, int], config: CloudRunConfig, instance: str) -> run_v2.Job:
    """The Cloud Run job of an attempt. `size` is (CPUs, MiB); `instance` labels it as this installation's."""
    cpus, memory_mb = size
    mounts = {f"tmpfs-{number}": mount for number, mount in enumerate(spec.tmpfs.items())}
    container = run_v2.Container(
        image=spec.image,
        command=list(spec.entry_point),
        args=list(spec.command),
        working_dir=spec.working_dir,
        env=[run_v2.EnvVar(name=name, value=value) for name, value in spec.variables.items()],
        resources=run_v2.ResourceRequirements(limits={"cpu": str(cpus), "memory": f"{memory_mb}Mi"}),
        volume_mounts=[run_v2.VolumeMount(name=name, mount_path=path) for name, (path, _) in mounts.items()],
    )
    task = run_v2.TaskTemplate(
        containers=[container],
        volumes=[
            run_v2.Volume(name=name, empty_dir=run_v2.EmptyDirVolumeSource(medium=MEMORY, size_limit=f"{size_mb}Mi"))
            for name, (_, size_mb) in mounts.items()
        ],
        # The default of 3 would run the job again after a failure.
        max_retries=0,
        timeout=timedelta(seconds=spec.timeout_seconds or config.limits.timeout_seconds),
        service_account=config.service_account,
        execution_environment=run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
        vpc_access=None if config.vpc is None else _vpc_access(config.vpc),
    )
    labels = {"instance": instance, "job": str(spec.job_id), "attempt": str(spec.attempt)}
    labels = {f"{LABEL}-{name}": value for name, value in labels.items()}
    # Executions get the labels of the template, not those of the job.
    template = run_v2.ExecutionTemplate(labels=labels, task_count=1, parallelism=1, template=task)
    return run_v2.Job(labels=labels, template=template, client=LABEL)


def _vpc_access(vpc: Vpc) -> run_v2.VpcAccess:
    egress = getattr(run_v2.VpcAccess.VpcEgress, vpc.egress.upper().replace("-", "_"))
    if vpc.connector:
        return run_v2.VpcAccess(connector=vpc.connector, egress=egress)
    interface = run_v2.VpcAccess.NetworkInterface(network=vpc.network, subnetwork=vpc.subnetwork, tags=vpc.tags)
    return run_v2.VpcAccess(network_interfaces=[interface], egress=egress)
