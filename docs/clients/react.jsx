// A list of jobs in React that is as new as the newest event: with urql, and with Apollo Client.
import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { ApolloProvider, useQuery as useApolloQuery } from "@apollo/client/react";
import { createClient as createSocket } from "graphql-ws";
import { useEffect, useMemo, useRef } from "react";
import { Provider, cacheExchange, createClient, fetchExchange, useQuery } from "urql";

const JOBS = gql`query Jobs { jobs(first: 20) { edges { node { __typename id name status host { __typename id name } } } } }`;
const EVENTS = "subscription($after: String) { routingEvents(after: $after) { cursor } }";

const headers = (token) => ({ Authorization: `Bearer ${token}`, Accept: "application/json" });

/** Calls `changed` at first and when something has happened, at most ten times a second. It misses no event. */
export function useRoutingEvents({ url, token }, changed) {
  const newest = useRef(changed);
  newest.current = changed;
  useEffect(() => {
    const address = `${url.replace(/^http/, "ws")}/graphql`;
    const connectionParams = { Authorization: `Bearer ${token}` };
    // Its own retry would send the first cursor again.
    const socket = createSocket({ url: address, connectionParams, retryAttempts: 0 });
    let cursor, timer, isOver;
    const call = () => (timer ??= setTimeout(() => ((timer = undefined), newest.current()), 100));
    const follow = async () => {
      // The cursor first, then the state: so nothing is missed in between.
      if (cursor === undefined) for await (const { data } of socket.iterate({ query: "{ eventCursor }" })) cursor = data.eventCursor;
      call();
      for await (const { data } of socket.iterate({ query: EVENTS, variables: { after: cursor } })) {
        cursor = data.routingEvents.cursor;
        call();
      }
    };
    const failed = (error) => {
      // A token that was refused is refused again. GraphQL's errors mean that the cursor is of no use any more.
      if ([4400, 4401, 4403].includes(error.code)) isOver = true;
      else if (Array.isArray(error) || error instanceof TypeError) cursor = undefined;
    };
    (async () => {
      for (; !isOver; await new Promise((again) => setTimeout(again, 1000 * Math.random()))) await follow().catch(failed);
    })();
    return () => {
      isOver = true;
      clearTimeout(timer);
      socket.dispose();
    };
  }, [url, token]);
}

function List({ data, error }) {
  if (error) return <p role="alert">{error.message}</p>;
  const jobs = data?.jobs.edges ?? [];
  return <ul>{jobs.map(({ node: job }) => <li key={job.id}>{`${job.name}: ${job.status} ${job.host?.name ?? ""}`}</li>)}</ul>;
}

function UrqlList(place) {
  const [found, again] = useQuery({ query: JOBS });
  useRoutingEvents(place, () => again({ requestPolicy: "network-only" }));
  return <List {...found} />;
}

export function UrqlJobs({ url, token }) {
  const client = useMemo(() => {
    const exchanges = [cacheExchange, fetchExchange];
    return createClient({ url: `${url}/graphql`, exchanges, preferGetMethod: false, fetchOptions: { headers: headers(token) } });
  }, [url, token]);
  return <Provider value={client}><UrqlList url={url} token={token} /></Provider>;
}

function ApolloList(place) {
  const { refetch, ...found } = useApolloQuery(JOBS);
  useRoutingEvents(place, () => refetch());
  return <List {...found} />;
}

export function ApolloJobs({ url, token }) {
  const client = useMemo(() => {
    const link = new HttpLink({ uri: `${url}/graphql`, headers: headers(token) });
    return new ApolloClient({ link, cache: new InMemoryCache() });
  }, [url, token]);
  return <ApolloProvider client={client}><ApolloList url={url} token={token} /></ApolloProvider>;
}
