// Generated from operations.graphql by operations.mjs.
/** The text of an operation, with the types of its data and its variables. */
export type Document<Data, Variables> = string & { types?: (variables: Variables) => Data };

/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
/** What is asked of a host before it gets a job. */
export type CheckCode =
  /** Is it active? */
  | 'INACTIVE'
  /** Does it take new jobs? */
  | 'DRAINING'
  /** Does it answer its probes? */
  | 'UNHEALTHY'
  /** Was it probed lately? */
  | 'HEALTH_UNKNOWN'
  /** Do launches succeed there? */
  | 'EJECTED'
  /** A quota of the host was used up a while ago. */
  | 'COOLDOWN'
  /** Is it of the kind that the job requires? */
  | 'EXECUTOR_TYPE'
  /** What the job asks for that not every host takes: a user, a network; on Cloud Run the image's registry, the size, the timeout, the environment. */
  | 'EXECUTOR_LIMITS'
  /** An earlier attempt of the job showed that this host lacks something it needs: a registry's login, the image for its platform, a network, a folder. */
  | 'HOST_LACKS'
  /** Is it in the region that the job requires? */
  | 'REGION'
  /** Has it the labels that the job selects? */
  | 'SELECTOR'
  /** Has it a free slot? */
  | 'SLOTS'
  /** Has it enough free memory? */
  | 'MEMORY'
  /** Has it enough free cores? */
  | 'CPU'
  /** Is its room free, and not kept for a job that has waited longer? */
  | 'RESERVED'
  /** A check that this installation has registered itself. */
  | 'OTHER';

/** An environment variable of a job. */
export type EnvironmentVariable = {
  /** Its name. */
  name: string;
  /** Its value, which may be secret. */
  value: string;
};

/** The kinds of hosts. */
export type ExecutorType =
  /** A Docker or Podman engine. */
  | 'DOCKER'
  /** A region of Google Cloud Run. */
  | 'CLOUDRUN'
  /** The simulator, which runs nothing. */
  | 'SIMULATED';

/** Why an attempt failed. EXIT_CODE: its program ended with another code than 0. OUT_OF_MEMORY: it used more than its limit. TIMEOUT: it ran too long. QUEUE_TIMEOUT: it was not routed in time. NOT_STARTED: it could not be started. HOST_FAULT: its host ended it. VANISHED: its container is gone. SERVICE_ERROR: an error of this service, which is in its log. */
export type FailureReason =
  /** Its program ended with another code than 0. */
  | 'EXIT_CODE'
  /** It used more memory than its limit. */
  | 'OUT_OF_MEMORY'
  /** It ran for longer than its timeout. */
  | 'TIMEOUT'
  /** It was not routed in time. */
  | 'QUEUE_TIMEOUT'
  /** It could not be started. */
  | 'NOT_STARTED'
  /** Its host ended it. */
  | 'HOST_FAULT'
  /** Its container is gone. */
  | 'VANISHED'
  /** An error of this service, which is in its log. */
  | 'SERVICE_ERROR';

/** Whether a host answers its probes. */
export type HealthStatus =
  /** It does. */
  | 'HEALTHY'
  /** It has failed several probes in a row. */
  | 'UNHEALTHY'
  /** It was not probed lately. */
  | 'UNKNOWN';

/** A change to suppose while planning; nothing is written. */
export type HostAssumption = {
  /** The host that is supposed to change. */
  hostId: string | number;
  /** False: jobs are never routed to it. */
  isActive?: boolean | null | undefined;
  /** True: it takes no new jobs. */
  isDraining?: boolean | null | undefined;
  /** 0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job. */
  routingWeight?: number | null | undefined;
  /** The most jobs that it holds at the same time. */
  maxConcurrentJobs?: number | null | undefined;
  /** The most MiB that jobs hold on it; null: what the engine reports. */
  maxMemoryMb?: number | null | undefined;
  /** The most cores that jobs hold on it; null: what the engine reports. */
  maxCpuCores?: number | null | undefined;
};

/** A host to create. */
export type HostInput = {
  /** Its settings by executor type; see docs/engines.md and docs/cloudrun.md. */
  config?: any;
  /** For regionPreference of jobs; on Cloud Run it comes from config.region. */
  region?: string | null | undefined;
  /** Names and values for people and filters, as an object. */
  labels?: any;
  /** 0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job. */
  routingWeight?: number | null | undefined;
  /** The most jobs that it holds at the same time. */
  maxConcurrentJobs?: number | null | undefined;
  /** The most MiB that jobs hold on it; null: what the engine reports. */
  maxMemoryMb?: number | null | undefined;
  /** The most cores that jobs hold on it; null: what the engine reports. */
  maxCpuCores?: number | null | undefined;
  /** False: jobs are never routed to it. */
  isActive?: boolean | null | undefined;
  /** Unique; letters, digits and -._ are allowed. */
  name: string;
  /** The kind of host. */
  executorType: ExecutorType;
};

/** What changes of a host; what is not given stays. */
export type HostPatch = {
  /** A JSON merge patch (RFC 7396) of its settings: null removes a key. */
  config?: any;
  /** The region; "" when it has none. */
  region?: string | null | undefined;
  /** All of its labels: they replace those that it has. */
  labels?: any;
  /** 0 to 1000: its share of the jobs. 0: only when no host with a weight can take the job. */
  routingWeight?: number | null | undefined;
  /** The most jobs that it holds at the same time. */
  maxConcurrentJobs?: number | null | undefined;
  /** The most MiB that jobs hold on it; null: what the engine reports. */
  maxMemoryMb?: number | null | undefined;
  /** The most cores that jobs hold on it; null: what the engine reports. */
  maxCpuCores?: number | null | undefined;
  /** False: jobs are never routed to it. */
  isActive?: boolean | null | undefined;
  /** Its name. */
  name?: string | null | undefined;
};

/** Which jobs are wanted: those that meet all that is given. */
export type JobFilter = {
  /** Its name. */
  name?: string | null | undefined;
  /** The kind of host of the latest attempt. */
  executorType?: ExecutorType | null | undefined;
  /** The name of the token that submitted it. */
  submittedBy?: string | null | undefined;
  /** Conditions that must be met as well. */
  AND?: JobFilter | null | undefined;
  /** Conditions that may be met instead. */
  OR?: JobFilter | null | undefined;
  /** Conditions that must not be met. */
  NOT?: JobFilter | null | undefined;
  /** A part of the name, in small or capital letters. */
  nameContains?: string | null | undefined;
  /** A part of the image, in small or capital letters. */
  imageContains?: string | null | undefined;
  /** Its status is one of these. */
  status?: Array<JobStatus> | null | undefined;
  /** The name of the host of the latest attempt. */
  hostName?: string | null | undefined;
  /** The host of the latest attempt. */
  hostId?: string | number | null | undefined;
  /** An object: each label must have this value, or one of these if it is a list. */
  labels?: any;
  /** Later than this; a time without a zone is in UTC. */
  submittedAfter?: string | null | undefined;
  /** Earlier than this; a time without a zone is in UTC. */
  submittedBefore?: string | null | undefined;
  /** Ended later than this; a time without a zone is in UTC. */
  finishedAfter?: string | null | undefined;
  /** Ended earlier than this; a time without a zone is in UTC. */
  finishedBefore?: string | null | undefined;
  /** Ran at least so long, from start to end. */
  minDurationSeconds?: number | null | undefined;
  /** Ran at most so long, from start to end. */
  maxDurationSeconds?: number | null | undefined;
  /** Its exit code is one of these. */
  exitCode?: Array<number> | null | undefined;
  /** It failed for one of these reasons. */
  failure?: Array<FailureReason> | null | undefined;
  /** A part of the error, in small or capital letters. */
  errorContains?: string | null | undefined;
  /** At its n-th attempt or a later one. */
  minAttempt?: number | null | undefined;
  /** Jobs that wait, and that some host fails to take by one of these. */
  waitingOn?: Array<CheckCode> | null | undefined;
};

/** A job to submit. */
export type JobInput = {
  /** The image, such as busybox:1.36 or registry.example.org/team/model@sha256:…. */
  image: string;
  /** A name for people; it need not be unique. */
  name?: string | null | undefined;
  /** The arguments of its program. */
  command?: Array<string> | null | undefined;
  /** Environment variables. The values are encrypted and never returned. */
  environment?: Array<EnvironmentVariable> | null | undefined;
  /** Its program; that of the image when it is not given. */
  entryPoint?: Array<string> | null | undefined;
  /** The directory in which its program starts. */
  workingDir?: string | null | undefined;
  /** NAME, UID or UID:GID; only on hosts that allow it. */
  user?: string | null | undefined;
  /** Instead of the host's; only on hosts that allow it (config.allow.networks). */
  network?: string | null | undefined;
  /** True: it cannot write into the file system of its image. */
  readOnlyRoot?: boolean | null | undefined;
  /** MiB of /dev/shm, which count as memory of the job; otherwise the engine's default. */
  shmSizeMb?: number | null | undefined;
  /** File systems in memory. */
  tmpfs?: Array<TmpfsInput> | null | undefined;
  /** MiB that it may use; they are reserved for it. */
  memoryLimitMb?: number | null | undefined;
  /** Cores that it may use; they are reserved for it. */
  cpuLimit?: number | null | undefined;
  /** It is stopped when it has run for so long. */
  timeoutSeconds?: number | null | undefined;
  /** Higher ones are routed first; 0 when it is not given. */
  priority?: number | null | undefined;
  /** The kind of host to try first. */
  preferredExecutor?: ExecutorType | null | undefined;
  /** True: only hosts of preferredExecutor. */
  executorRequired?: boolean | null | undefined;
  /** The region to try first. */
  regionPreference?: string | null | undefined;
  /** True: only hosts of regionPreference. */
  regionRequired?: boolean | null | undefined;
  /** How a host is chosen; WEIGHTED when it is not given. */
  strategy?: Strategy | null | undefined;
  /** Names and values for people and filters, as an object. */
  labels?: any;
  /** Labels that a host must have, as an object. */
  hostSelector?: any;
  /** FAILED with a reason when it has not been routed by then. None: waits as long as it takes. */
  queueTimeoutSeconds?: number | null | undefined;
  /** How often it is run when its program fails; 1 when it is not given. */
  maxAttempts?: number | null | undefined;
  /** The same key with the same input gives the same job back; with another input, Conflict. */
  idempotencyKey?: string | null | undefined;
};

/** SUBMITTED: by age. FINISHED: by their end; only jobs that have ended. */
export type JobOrder =
  /** Newest first. */
  | 'SUBMITTED_DESC'
  /** Oldest first. */
  | 'SUBMITTED_ASC'
  /** The last that ended first. */
  | 'FINISHED_DESC'
  /** The first that ended first. */
  | 'FINISHED_ASC'
  /** Jobs that wait, in the order in which they are routed as far as their requirements allow it: by priority, then by age. */
  | 'QUEUE';

/** What a job has reached. The last four are final for the attempt. */
export type JobStatus =
  /** It waits for a host. */
  | 'PENDING'
  /** It has a host. */
  | 'ROUTED'
  /** Its container is being made. */
  | 'LAUNCHING'
  /** Its container runs. */
  | 'RUNNING'
  /** Its program ended with 0. */
  | 'SUCCEEDED'
  /** See `failure`. */
  | 'FAILED'
  /** It ran for longer than its timeout. */
  | 'TIMED_OUT'
  /** A client cancelled it. */
  | 'CANCELLED';

/** Where a program writes. */
export type LogStream =
  /** Its output. */
  | 'STDOUT'
  /** Its errors. */
  | 'STDERR';

/** OTHER_VERSION: recorded by an algorithm that this version no longer has. EXPIRED: the checks of all hosts are no longer kept; the reason is. */
export type Replay =
  /** It gives the same host. */
  | 'SAME'
  /** It gives another host. */
  | 'DIFFERENT'
  /** It was recorded by an algorithm that this version no longer has. */
  | 'OTHER_VERSION'
  /** The checks of all hosts are no longer kept. */
  | 'EXPIRED';

/** What a token allows; each role includes the ones before it. */
export type Role =
  /** To read. */
  | 'VIEWER'
  /** To submit, cancel and retry jobs. */
  | 'OPERATOR'
  /** To change hosts and tokens. */
  | 'ADMIN';

/** Which events are wanted: those that meet all that is given. */
export type RoutingEventFilter = {
  /** Events of one of these kinds. */
  kinds?: Array<RoutingEventKind> | null | undefined;
  /** The job. */
  jobId?: string | number | null | undefined;
  /** The host. */
  hostId?: string | number | null | undefined;
  /** The kind of host. */
  executorType?: ExecutorType | null | undefined;
};

/** What happened. */
export type RoutingEventKind =
  /** A client submitted a job. */
  | 'JOB_SUBMITTED'
  /** A job got a host. */
  | 'JOB_ROUTED'
  /** No host could take a job. */
  | 'JOB_REFUSED'
  /** A launch that takes long says what it does. */
  | 'JOB_PROGRESS'
  /** A job has a container. */
  | 'JOB_LAUNCHED'
  /** A job runs. */
  | 'JOB_STARTED'
  /** A job has ended. */
  | 'JOB_FINISHED'
  /** A further attempt of a job waits for a host. */
  | 'JOB_RETRIED'
  /** A client asked to cancel a job. */
  | 'JOB_CANCEL_REQUESTED'
  /** A job was cancelled. */
  | 'JOB_CANCELLED'
  /** A host was created. */
  | 'HOST_CREATED'
  /** A host was changed. */
  | 'HOST_UPDATED'
  /** The health of a host changed. */
  | 'HOST_HEALTH_CHANGED'
  /** Launches kept failing on a host, which is avoided for a while. */
  | 'HOST_EJECTED'
  /** A quota of a host is used up, which is avoided for a while. */
  | 'HOST_COOLDOWN'
  /** Room on a host is kept for the job that has waited longest. */
  | 'HOST_RESERVED'
  /** Room is no longer kept. */
  | 'HOST_RELEASED'
  /** A host takes no new jobs. */
  | 'HOST_DRAINED'
  /** A drained host has finished its last job. */
  | 'HOST_EMPTY'
  /** A host takes jobs again. */
  | 'HOST_RESUMED'
  /** A host was declared lost. */
  | 'HOST_LOST'
  /** What was left of jobs was removed from a host. */
  | 'HOST_SWEPT'
  /** A host was deleted. */
  | 'HOST_DELETED';

/** How a host is chosen among those that can take a job. */
export type Strategy =
  /** By chance, in proportion to the weights. */
  | 'WEIGHTED'
  /** The least loaded for its weight. */
  | 'BALANCED'
  /** The fullest that still has room. */
  | 'PACKED';

/** What an attempt has reached. */
export type TimelineStep =
  /** A client submitted it. */
  | 'SUBMITTED'
  /** A further attempt waits for a host. */
  | 'QUEUED'
  /** It got a host. */
  | 'ROUTED'
  /** It has a container. */
  | 'LAUNCHED'
  /** The container runs. */
  | 'STARTED'
  /** A client asked to cancel it. */
  | 'CANCEL_REQUESTED'
  /** Its program ended with 0. */
  | 'SUCCEEDED'
  /** It failed. */
  | 'FAILED'
  /** It ran for longer than its timeout. */
  | 'TIMED_OUT'
  /** It was cancelled. */
  | 'CANCELLED';

/** A file system in memory, which counts against the job's memory; nothing in it can be executed. */
export type TmpfsInput = {
  /** Where it is mounted. */
  path: string;
  /** MiB that it can hold. */
  sizeMb: number;
};

/** NEVER: were every host active, healthy and empty, none could take it: the job or the fleet must change. NOT_NOW: one could, once it is free, up or back in service; an empty fleet too. */
export type Verdict =
  /** It can run. */
  | 'FEASIBLE'
  /** It can run once a host is free, up or back in service. */
  | 'NOT_NOW'
  /** It cannot run until the job or the fleet is changed. */
  | 'NEVER';

export type ViewerQueryVariables = Exact<{ [key: string]: never; }>;


export type ViewerQuery = { viewer: { name: string, role: Role, expiresAt: string | null } };

export type AnswersQueryVariables = Exact<{ [key: string]: never; }>;


export type AnswersQuery = { __typename: 'Query' };

export type NewestEventQueryVariables = Exact<{ [key: string]: never; }>;


export type NewestEventQuery = { eventCursor: string };

export type FindQueryVariables = Exact<{
  text: string;
}>;


export type FindQuery = { hosts: { edges: Array<{ node: { name: string } }> }, jobs: { edges: Array<{ node: { id: string, name: string, image: string, status: JobStatus } }> } };

export type EventPartsFragment = { cursor: string, kind: RoutingEventKind, at: string, message: string, hostName: string, actor: string, attempt: number | null, job: { id: string, name: string, image: string } | null, host: { id: string, name: string } | null };

export type EventsSubscriptionVariables = Exact<{
  after?: string | null | undefined;
}>;


export type EventsSubscription = { routingEventBatches: Array<{ cursor: string, kind: RoutingEventKind, at: string, message: string, hostName: string, actor: string, attempt: number | null, job: { id: string, name: string, image: string } | null, host: { id: string, name: string } | null }> };

export type EarlierEventsQueryVariables = Exact<{
  before?: string | null | undefined;
  filters?: RoutingEventFilter | null | undefined;
}>;


export type EarlierEventsQuery = { routingEvents: { edges: Array<{ node: { cursor: string, kind: RoutingEventKind, at: string, message: string, hostName: string, actor: string, attempt: number | null, job: { id: string, name: string, image: string } | null, host: { id: string, name: string } | null } }>, pageInfo: { hasPreviousPage: boolean, startCursor: string | null } } };

export type OverviewQueryVariables = Exact<{ [key: string]: never; }>;


export type OverviewQuery = { jobStats: { unfinished: { pending: number, routed: number, launching: number, running: number }, total: { succeeded: number, failed: number, timedOut: number, cancelled: number, queueTime: { p50: number | null, p95: number | null }, runTime: { p50: number | null, p95: number | null }, failures: Array<{ reason: FailureReason, attempts: number }> }, buckets: Array<{ start: string, figures: { submitted: number, succeeded: number, failed: number, timedOut: number } }> }, queue: { groups: Array<{ verdict: Verdict, jobs: number, oldestSubmittedAt: string, rejections: Array<{ code: CheckCode, hosts: number }> }> }, capacity: Array<{ executorType: ExecutorType, region: string, hosts: number, availableHosts: number, capacity: { maxConcurrentJobs: number, runningJobs: number, availableSlots: number, maxMemoryMb: number | null, reservedMemoryMb: number } }>, hosts: { edges: Array<{ node: { id: string, name: string, isActive: boolean, isDraining: boolean, ejectedUntil: string | null, cooldownUntil: string | null, health: { status: HealthStatus, error: string | null, lastCheckedAt: string | null } } }> } };

export type QueueQueryVariables = Exact<{ [key: string]: never; }>;


export type QueueQuery = { queue: { pending: number, active: number, oldestSubmittedAt: string | null, groups: Array<{ verdict: Verdict, jobs: number, oldestSubmittedAt: string, rejections: Array<{ code: CheckCode, hosts: number }> }> }, jobs: { edges: Array<{ node: { id: string, name: string, image: string, priority: number, submittedAt: string, labelList: Array<{ name: string, value: string }>, waitingOn: { verdict: Verdict, message: string } | null } }>, pageInfo: { hasNextPage: boolean } } };

export type HostPartsFragment = { id: string, name: string, executorType: ExecutorType, region: string, routingWeight: number, engine: string | null, isActive: boolean, isDraining: boolean, emptySince: string | null, ejectedUntil: string | null, cooldownUntil: string | null, labelList: Array<{ name: string, value: string }>, health: { status: HealthStatus, latencyMs: number | null, error: string | null, lastCheckedAt: string | null, consecutiveFailures: number }, capacity: { maxConcurrentJobs: number, runningJobs: number, availableSlots: number, maxMemoryMb: number | null, reservedMemoryMb: number, maxCpuCores: number | null, reservedCpuCores: number } };

export type FleetQueryVariables = Exact<{ [key: string]: never; }>;


export type FleetQuery = { hosts: { edges: Array<{ node: { id: string, name: string, executorType: ExecutorType, region: string, routingWeight: number, engine: string | null, isActive: boolean, isDraining: boolean, emptySince: string | null, ejectedUntil: string | null, cooldownUntil: string | null, labelList: Array<{ name: string, value: string }>, health: { status: HealthStatus, latencyMs: number | null, error: string | null, lastCheckedAt: string | null, consecutiveFailures: number }, capacity: { maxConcurrentJobs: number, runningJobs: number, availableSlots: number, maxMemoryMb: number | null, reservedMemoryMb: number, maxCpuCores: number | null, reservedCpuCores: number } } }>, pageInfo: { hasNextPage: boolean, endCursor: string | null } } };

export type HostQueryVariables = Exact<{
  name: string;
}>;


export type HostQuery = { host: { createdAt: string, config: any, id: string, name: string, executorType: ExecutorType, region: string, routingWeight: number, engine: string | null, isActive: boolean, isDraining: boolean, emptySince: string | null, ejectedUntil: string | null, cooldownUntil: string | null, jobs: { edges: Array<{ node: { id: string, name: string, image: string, status: JobStatus, startedAt: string | null, finishedAt: string | null, submittedAt: string } }> }, decisions: { edges: Array<{ node: { id: string, decidedAt: string, reason: string, job: { id: string, name: string, image: string } } }> }, labelList: Array<{ name: string, value: string }>, health: { status: HealthStatus, latencyMs: number | null, error: string | null, lastCheckedAt: string | null, consecutiveFailures: number }, capacity: { maxConcurrentJobs: number, runningJobs: number, availableSlots: number, maxMemoryMb: number | null, reservedMemoryMb: number, maxCpuCores: number | null, reservedCpuCores: number } } | null };

export type HostEventsQueryVariables = Exact<{
  name: string;
}>;


export type HostEventsQuery = { host: { id: string, events: { edges: Array<{ node: { cursor: string, kind: RoutingEventKind, at: string, message: string, hostName: string, actor: string, attempt: number | null, job: { id: string, name: string, image: string } | null, host: { id: string, name: string } | null } }> } } | null };

export type HostHistoryQueryVariables = Exact<{
  name: string;
  since?: string | null | undefined;
}>;


export type HostHistoryQuery = { host: { id: string, history: Array<{ start: string, runningJobs: number, mostJobs: number, reservedMemoryMb: number, latencyMs: number | null }> } | null };

type HostOutcome_ExecutorHost_Fragment = { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } };

type HostOutcome_ValidationFailed_Fragment = { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> };

type HostOutcome_NotFound_Fragment = { __typename: 'NotFound', message: string };

type HostOutcome_Conflict_Fragment = { __typename: 'Conflict', message: string, field: string | null };

export type HostOutcomeFragment =
  | HostOutcome_ExecutorHost_Fragment
  | HostOutcome_ValidationFailed_Fragment
  | HostOutcome_NotFound_Fragment
  | HostOutcome_Conflict_Fragment
;

export type CreateHostMutationVariables = Exact<{
  input: HostInput;
}>;


export type CreateHostMutation = { createHost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type UpdateHostMutationVariables = Exact<{
  id: string | number;
  input: HostPatch;
}>;


export type UpdateHostMutation = { updateHost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type DrainHostMutationVariables = Exact<{
  id: string | number;
}>;


export type DrainHostMutation = { drainHost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type ResumeHostMutationVariables = Exact<{
  id: string | number;
}>;


export type ResumeHostMutation = { resumeHost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type DeleteHostMutationVariables = Exact<{
  id: string | number;
}>;


export type DeleteHostMutation = { deleteHost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type DeclareHostLostMutationVariables = Exact<{
  id: string | number;
}>;


export type DeclareHostLostMutation = { declareHostLost:
    | { __typename: 'ExecutorHost', id: string, name: string, health: { status: HealthStatus, error: string | null } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type CheckHostsMutationVariables = Exact<{
  ids?: Array<string | number> | string | number | null | undefined;
}>;


export type CheckHostsMutation = { checkHealth: Array<{ name: string, health: { status: HealthStatus, error: string | null } }> };

export type JobsQueryVariables = Exact<{
  filters?: JobFilter | null | undefined;
  order: JobOrder;
  after?: string | null | undefined;
  first?: number | null | undefined;
}>;


export type JobsQuery = { jobs: { totalCount: { count: number, isExact: boolean }, edges: Array<{ node: { id: string, name: string, image: string, status: JobStatus, priority: number, attempt: number, maxAttempts: number, exitCode: number | null, failure: FailureReason | null, error: string, submittedBy: string, submittedAt: string, queuedAt: string | null, routedAt: string | null, startedAt: string | null, finishedAt: string | null, labelList: Array<{ name: string, value: string }>, host: { name: string } | null } }>, pageInfo: { hasNextPage: boolean, hasPreviousPage: boolean, endCursor: string | null } } };

export type ComparedJobsQueryVariables = Exact<{
  a: string | number;
  b: string | number;
}>;


export type ComparedJobsQuery = { a: { id: string, name: string, image: string, status: JobStatus, command: Array<string>, entryPoint: Array<string>, environmentNames: Array<string>, memoryLimitMb: number | null, cpuLimit: number | null, timeoutSeconds: number, priority: number, preferredExecutor: ExecutorType | null, regionPreference: string, hostSelector: any, strategy: Strategy, attempt: number, exitCode: number | null, failure: FailureReason | null, error: string, routingReason: string, submittedAt: string, startedAt: string | null, finishedAt: string | null, queuedSeconds: number | null, runSeconds: number | null, submittedBy: string, labelList: Array<{ name: string, value: string }>, host: { name: string } | null } | null, b: { id: string, name: string, image: string, status: JobStatus, command: Array<string>, entryPoint: Array<string>, environmentNames: Array<string>, memoryLimitMb: number | null, cpuLimit: number | null, timeoutSeconds: number, priority: number, preferredExecutor: ExecutorType | null, regionPreference: string, hostSelector: any, strategy: Strategy, attempt: number, exitCode: number | null, failure: FailureReason | null, error: string, routingReason: string, submittedAt: string, startedAt: string | null, finishedAt: string | null, queuedSeconds: number | null, runSeconds: number | null, submittedBy: string, labelList: Array<{ name: string, value: string }>, host: { name: string } | null } | null };

export type ComparedPartsFragment = { id: string, name: string, image: string, status: JobStatus, command: Array<string>, entryPoint: Array<string>, environmentNames: Array<string>, memoryLimitMb: number | null, cpuLimit: number | null, timeoutSeconds: number, priority: number, preferredExecutor: ExecutorType | null, regionPreference: string, hostSelector: any, strategy: Strategy, attempt: number, exitCode: number | null, failure: FailureReason | null, error: string, routingReason: string, submittedAt: string, startedAt: string | null, finishedAt: string | null, queuedSeconds: number | null, runSeconds: number | null, submittedBy: string, labelList: Array<{ name: string, value: string }>, host: { name: string } | null };

export type JobQueryVariables = Exact<{
  id: string | number;
}>;


export type JobQuery = { job: { id: string, name: string, image: string, status: JobStatus, labels: any, command: Array<string>, entryPoint: Array<string>, environmentNames: Array<string>, workingDir: string, user: string, network: string, readOnlyRoot: boolean, memoryLimitMb: number | null, cpuLimit: number | null, timeoutSeconds: number, priority: number, preferredExecutor: ExecutorType | null, executorRequired: boolean, regionPreference: string, regionRequired: boolean, hostSelector: any, strategy: Strategy, maxAttempts: number, attempt: number, executionId: string, exitCode: number | null, error: string, failure: FailureReason | null, message: string, routingReason: string, submittedBy: string, cancelledBy: string, cancelRequestedAt: string | null, submittedAt: string, queuedAt: string | null, routedAt: string | null, startedAt: string | null, finishedAt: string | null, notBefore: string | null, queuedSeconds: number | null, runSeconds: number | null, labelList: Array<{ name: string, value: string }>, host: { id: string, name: string } | null, reservedHost: { name: string } | null, waitingOn: { message: string, verdict: Verdict, rejections: Array<{ code: CheckCode, hosts: number }>, suggestions: Array<{ message: string, hosts: number }> } | null, timeline: Array<{ step: TimelineStep, at: string, attempt: number, hostName: string, actor: string, message: string }>, decisions: Array<{ id: string, attempt: number, reason: string, decidedAt: string, strategy: Strategy, replay: Replay, host: { name: string } | null, hosts: { pageInfo: { hasNextPage: boolean }, edges: Array<{ node: { hostName: string, verdict: Verdict, weight: number, chosen: boolean, checks: Array<{ code: CheckCode, passed: boolean, needed: string, available: string, message: string }> } }> } }> } | null };

export type JobPartsFragment = { id: string, name: string, image: string, status: JobStatus, labels: any, command: Array<string>, entryPoint: Array<string>, environmentNames: Array<string>, workingDir: string, user: string, network: string, readOnlyRoot: boolean, memoryLimitMb: number | null, cpuLimit: number | null, timeoutSeconds: number, priority: number, preferredExecutor: ExecutorType | null, executorRequired: boolean, regionPreference: string, regionRequired: boolean, hostSelector: any, strategy: Strategy, maxAttempts: number, attempt: number, executionId: string, exitCode: number | null, error: string, failure: FailureReason | null, message: string, routingReason: string, submittedBy: string, cancelledBy: string, cancelRequestedAt: string | null, submittedAt: string, queuedAt: string | null, routedAt: string | null, startedAt: string | null, finishedAt: string | null, notBefore: string | null, queuedSeconds: number | null, runSeconds: number | null, labelList: Array<{ name: string, value: string }>, host: { id: string, name: string } | null, reservedHost: { name: string } | null, waitingOn: { message: string, verdict: Verdict, rejections: Array<{ code: CheckCode, hosts: number }>, suggestions: Array<{ message: string, hosts: number }> } | null, timeline: Array<{ step: TimelineStep, at: string, attempt: number, hostName: string, actor: string, message: string }>, decisions: Array<{ id: string, attempt: number, reason: string, decidedAt: string, strategy: Strategy, replay: Replay, host: { name: string } | null, hosts: { pageInfo: { hasNextPage: boolean }, edges: Array<{ node: { hostName: string, verdict: Verdict, weight: number, chosen: boolean, checks: Array<{ code: CheckCode, passed: boolean, needed: string, available: string, message: string }> } }> } }> };

export type JobsAheadQueryVariables = Exact<{ [key: string]: never; }>;


export type JobsAheadQuery = { jobs: { edges: Array<{ node: { id: string, name: string, image: string, priority: number, submittedAt: string } }> } };

export type JobEventsQueryVariables = Exact<{
  id: string | number;
}>;


export type JobEventsQuery = { routingEvents: { edges: Array<{ node: { cursor: string, kind: RoutingEventKind, at: string, message: string, hostName: string, actor: string, attempt: number | null, job: { id: string, name: string, image: string } | null, host: { id: string, name: string } | null } }> } };

export type StoredLogsQueryVariables = Exact<{
  id: string | number;
  after?: string | null | undefined;
}>;


export type StoredLogsQuery = { job: { logs: { edges: Array<{ node: { cursor: string, stream: LogStream, at: string, text: string } }>, pageInfo: { hasNextPage: boolean, endCursor: string | null } } } | null };

export type LiveLogsSubscriptionVariables = Exact<{
  id: string | number;
  after?: string | null | undefined;
}>;


export type LiveLogsSubscription = { jobLogs: { cursor: string, stream: LogStream, at: string, text: string } };

export type SubmitMutationVariables = Exact<{
  input: JobInput;
}>;


export type SubmitMutation = { submitJob:
    | { __typename: 'ContainerJob', id: string, name: string, status: JobStatus }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type CancelJobMutationVariables = Exact<{
  id: string | number;
}>;


export type CancelJobMutation = { cancelJob:
    | { __typename: 'ContainerJob' }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string }
   };

export type RetryJobMutationVariables = Exact<{
  id: string | number;
}>;


export type RetryJobMutation = { retryJob:
    | { __typename: 'ContainerJob' }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string }
   };

export type CancelJobsMutationVariables = Exact<{
  filters: JobFilter;
  dryRun: boolean;
}>;


export type CancelJobsMutation = { cancelJobs: { matched: number, changed: number, more: boolean } };

export type RetryJobsMutationVariables = Exact<{
  filters: JobFilter;
  dryRun: boolean;
}>;


export type RetryJobsMutation = { retryJobs: { matched: number, changed: number, more: boolean } };

export type SandboxQueryVariables = Exact<{ [key: string]: never; }>;


export type SandboxQuery = { hosts: { edges: Array<{ node: { id: string, name: string, executorType: ExecutorType, region: string, routingWeight: number, isActive: boolean, isDraining: boolean, capacity: { maxConcurrentJobs: number, runningJobs: number, maxMemoryMb: number | null, maxCpuCores: number | null } } }> }, jobs: { edges: Array<{ node: { id: string, name: string, image: string } }>, pageInfo: { hasNextPage: boolean } } };

export type PlanQueryVariables = Exact<{
  jobs: Array<JobInput> | JobInput;
  assume?: Array<HostAssumption> | HostAssumption | null | undefined;
  addHosts?: Array<HostInput> | HostInput | null | undefined;
}>;


export type PlanQuery = { planRouting: { waitingPlaced: number, waiting: Array<{ hostName: string, job: { id: string } | null }>, placements: Array<
      | { __typename: 'Placement', reason: string, hostName: string }
      | { __typename: 'RoutingRefused', message: string, verdict: Verdict, suggestions: Array<{ message: string, hosts: number }> }
      | { __typename: 'ValidationFailed', message: string }
      | { __typename: 'NotFound', message: string }
    > } };

export type TokensQueryVariables = Exact<{ [key: string]: never; }>;


export type TokensQuery = { tokens: Array<{ id: string, name: string, role: Role, createdAt: string, expiresAt: string | null, lastUsedAt: string | null }> };

export type AuditLogQueryVariables = Exact<{
  after?: string | null | undefined;
}>;


export type AuditLogQuery = { auditLog: { edges: Array<{ node: { id: string, at: string, actor: string, address: string, action: string, target: string, result: string, detail: string } }>, pageInfo: { hasNextPage: boolean, endCursor: string | null } } };

export type CreateTokenMutationVariables = Exact<{
  name: string;
  role: Role;
  days?: number | null | undefined;
}>;


export type CreateTokenMutation = { createToken:
    | { __typename: 'NewApiToken', secret: string, token: { name: string } }
    | { __typename: 'ValidationFailed', message: string, fields: Array<{ field: string, message: string, reason: string }> }
    | { __typename: 'Conflict', message: string, field: string | null }
   };

export type RevokeTokenMutationVariables = Exact<{
  id: string | number;
}>;


export type RevokeTokenMutation = { revokeToken:
    | { __typename: 'ApiToken', name: string }
    | { __typename: 'NotFound', message: string }
    | { __typename: 'Conflict', message: string }
   };

export const ViewerDocument: Document<ViewerQuery, ViewerQueryVariables>;
export const AnswersDocument: Document<AnswersQuery, AnswersQueryVariables>;
export const NewestEventDocument: Document<NewestEventQuery, NewestEventQueryVariables>;
export const FindDocument: Document<FindQuery, FindQueryVariables>;
export const EventsDocument: Document<EventsSubscription, EventsSubscriptionVariables>;
export const EarlierEventsDocument: Document<EarlierEventsQuery, EarlierEventsQueryVariables>;
export const OverviewDocument: Document<OverviewQuery, OverviewQueryVariables>;
export const QueueDocument: Document<QueueQuery, QueueQueryVariables>;
export const FleetDocument: Document<FleetQuery, FleetQueryVariables>;
export const HostDocument: Document<HostQuery, HostQueryVariables>;
export const HostEventsDocument: Document<HostEventsQuery, HostEventsQueryVariables>;
export const HostHistoryDocument: Document<HostHistoryQuery, HostHistoryQueryVariables>;
export const CreateHostDocument: Document<CreateHostMutation, CreateHostMutationVariables>;
export const UpdateHostDocument: Document<UpdateHostMutation, UpdateHostMutationVariables>;
export const DrainHostDocument: Document<DrainHostMutation, DrainHostMutationVariables>;
export const ResumeHostDocument: Document<ResumeHostMutation, ResumeHostMutationVariables>;
export const DeleteHostDocument: Document<DeleteHostMutation, DeleteHostMutationVariables>;
export const DeclareHostLostDocument: Document<DeclareHostLostMutation, DeclareHostLostMutationVariables>;
export const CheckHostsDocument: Document<CheckHostsMutation, CheckHostsMutationVariables>;
export const JobsDocument: Document<JobsQuery, JobsQueryVariables>;
export const ComparedJobsDocument: Document<ComparedJobsQuery, ComparedJobsQueryVariables>;
export const JobDocument: Document<JobQuery, JobQueryVariables>;
export const JobsAheadDocument: Document<JobsAheadQuery, JobsAheadQueryVariables>;
export const JobEventsDocument: Document<JobEventsQuery, JobEventsQueryVariables>;
export const StoredLogsDocument: Document<StoredLogsQuery, StoredLogsQueryVariables>;
export const LiveLogsDocument: Document<LiveLogsSubscription, LiveLogsSubscriptionVariables>;
export const SubmitDocument: Document<SubmitMutation, SubmitMutationVariables>;
export const CancelJobDocument: Document<CancelJobMutation, CancelJobMutationVariables>;
export const RetryJobDocument: Document<RetryJobMutation, RetryJobMutationVariables>;
export const CancelJobsDocument: Document<CancelJobsMutation, CancelJobsMutationVariables>;
export const RetryJobsDocument: Document<RetryJobsMutation, RetryJobsMutationVariables>;
export const SandboxDocument: Document<SandboxQuery, SandboxQueryVariables>;
export const PlanDocument: Document<PlanQuery, PlanQueryVariables>;
export const TokensDocument: Document<TokensQuery, TokensQueryVariables>;
export const AuditLogDocument: Document<AuditLogQuery, AuditLogQueryVariables>;
export const CreateTokenDocument: Document<CreateTokenMutation, CreateTokenMutationVariables>;
export const RevokeTokenDocument: Document<RevokeTokenMutation, RevokeTokenMutationVariables>;
