// Documents as Relay's hooks have them: fragments that are read again by id, and connections in both directions.
declare function graphql(strings: TemplateStringsArray): unknown;

export const page = graphql`
  query pagesQuery($id: ID!) {
    node(id: $id) { ...pages_host @alias }
    ...pages_jobs
  }
`;
export const host = graphql`
  fragment pages_host on ExecutorHost
  @refetchable(queryName: "pagesHostPaginationQuery")
  @argumentDefinitions(count: { type: "Int", defaultValue: 20 }, cursor: { type: "String" }) {
    name
    jobs(first: $count, after: $cursor) @connection(key: "pages_host_jobs") {
      edges { node { id status ...pages_job } }
    }
  }
`;
export const job = graphql`
  fragment pages_job on ContainerJob @refetchable(queryName: "pagesJobRefetchQuery") {
    name
    failure
    attempts { id status decision { reason } }
    host { name health { status } }
  }
`;
export const jobs = graphql`
  fragment pages_jobs on Query
  @refetchable(queryName: "pagesJobsPaginationQuery")
  @argumentDefinitions(
    first: { type: "Int", defaultValue: 20 }, after: { type: "String" }
    last: { type: "Int" }, before: { type: "String" }
  ) {
    jobs(first: $first, after: $after, last: $last, before: $before) @connection(key: "pages_jobs") {
      edges { node { ...pages_job } }
      pageInfo { hasPreviousPage startCursor }
    }
  }
`;
export const decisions = graphql`
  query pagesDecisionsQuery($filters: RoutingDecisionFilter) {
    routingDecisions(filters: $filters, first: 50) @connection(key: "pages_routingDecisions") {
      edges { node { id reason hosts(first: 5) { edges { node { hostName verdict } } } } }
    }
  }
`;
export const submit = graphql`
  mutation pagesSubmitMutation($input: JobInput!) {
    submitJob(input: $input) {
      ... on ContainerJob { ...pages_job @alias }
      ... on UserError { message }
    }
  }
`;
export const events = graphql`
  subscription pagesEventsSubscription($after: String) {
    routingEvents(after: $after) { cursor job { ...pages_job } host { name } }
  }
`;
