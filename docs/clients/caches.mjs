// What normalising caches have to know of the schema. Objects with an `id` are kept by it; all others belong to the object
// that they came with.
export const EMBEDDED = [
  "AppliedHost", "AuditEntryConnection", "AuditEntryEdge", "BulkChange", "Capacity", "CheckResult", "CloudRunSettings",
  "Conflict", "ContainerJobConnection", "ContainerJobEdge", "DockerSettings", "ExecutorCapacity", "ExecutorHostConnection",
  "ExecutorHostEdge", "FailureCount", "FieldError", "HostHealth", "HostUsage", "HostVerdict", "HostVerdictConnection",
  "HostVerdictEdge", "JobFigures", "JobStats", "JobStatsBucket", "JobStatsGroup", "Label", "LogConnection", "LogEdge",
  "LogLine", "Mount", "NewApiToken", "NotFound", "PageInfo", "Placement", "Quantiles", "QueueGroup", "QueueSummary",
  "RegistryLogin", "RejectionCount", "RoutingDecisionConnection", "RoutingDecisionEdge", "RoutingEventConnection",
  "RoutingEventEdge", "RoutingPlan", "RoutingRefused", "SimulatedSettings", "Suggestion", "TimelineEntry", "Tmpfs", "TotalCount",
  "UnfinishedJobs", "ValidationFailed", "Viewer", "VpcSettings", "WaitingPlacement",
];

/** For cacheExchange({ schema, keys }) of @urql/exchange-graphcache. */
export const keys = Object.fromEntries(EMBEDDED.map((name) => [name, () => null]));

/** For new InMemoryCache({ typePolicies, possibleTypes }) of Apollo Client. */
export const typePolicies = Object.fromEntries(EMBEDDED.map((name) => [name, { keyFields: false, merge: true }]));

export const possibleTypes = {
  Node: ["ApiToken", "AuditEntry", "ContainerJob", "ExecutorHost", "JobAttempt", "RoutingDecision", "RoutingEvent"],
  UserError: ["Conflict", "NotFound", "RoutingRefused", "ValidationFailed"],
};
