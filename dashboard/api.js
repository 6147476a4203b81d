// The public GraphQL API, over HTTP and as live events. Nothing here knows of pages.
import { createClient as createSocket } from "./vendor/graphql-ws.js";
import { createClient as createStream } from "./vendor/graphql-sse.js";
import {
  AnswersDocument,
  EventsDocument,
  NewestEventDocument,
  ViewerDocument,
} from "./operations.js";
import { signal, useEffect, useRef, useState } from "./vendor/preact.js";

/** @template Data, Variables @typedef {import("./operations.js").Document<Data, Variables>} Document */
/** @typedef {{ __typename?: "ValidationFailed" | "NotFound" | "Conflict" | "RoutingRefused" }} Refusal */
/** @typedef {import("./operations.js").EventPartsFragment} Event */

export const ROOT = document.documentElement.dataset.root ?? "";

/** An error with a sentence for the user. `code` is that of the API, or OFFLINE. */
export class ApiError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
    /** @type {{ field: string, message: string, reason: string }[]} */
    this.fields = [];
  }
}

/**
 * The caller: undefined until it is known, null when no user is signed in.
 * @type {import("@preact/signals").Signal<import("./operations.js").ViewerQuery["viewer"] | null | undefined>}
 */
export const viewer = signal(undefined);
/** "live", "connecting" or "offline", and since when. */
export const connection = signal({ state: "connecting", since: Date.now() });
/**
 * The newest events, newest last.
 * @type {import("@preact/signals").Signal<Event[]>}
 */
export const events = signal([]);
const KEPT_EVENTS = 500;

/**
 * Executes a query or mutation; returns its data.
 * @template Data, Variables
 * @param {Document<Data, Variables>} query
 * @param {Variables} [variables]
 * @param {{ signal?: AbortSignal }} [options]
 * @returns {Promise<Data>}
 */
export async function request(query, variables, { signal: abort } = {}) {
  let response;
  try {
    response = await fetch(`${ROOT}/graphql`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ query, variables: variables ?? {} }),
      signal: abort,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. This page tries again by itself.", "OFFLINE");
  }
  const answer = await response.json().catch(() => null);
  if (answer === null) throw new ApiError(`The server answered with status ${response.status}.`, "OFFLINE");
  const error = answer.errors?.[0];
  if (error) {
    if (error.extensions?.code === "UNAUTHENTICATED") viewer.value = null;
    throw new ApiError(error.message, error.extensions?.code);
  }
  return answer.data;
}

/**
 * Executes a mutation with one root field; a refusal that is data becomes an ApiError with its `fields`.
 * @template Data, Variables
 * @param {Document<Data, Variables>} query
 * @param {Variables} variables
 * @returns {Promise<Exclude<Data[Exclude<keyof Data, "__typename">], Refusal>>}
 */
export async function mutate(query, variables) {
  const [result] = Object.values(await request(query, variables));
  if (["ValidationFailed", "NotFound", "Conflict", "RoutingRefused"].includes(result?.__typename)) {
    const error = new ApiError(result.message, result.__typename);
    const { field, message } = result;
    error.fields = result.fields ?? (field ? [{ field, message, reason: message.replace(`${field}: `, "") }] : []);
    throw error;
  }
  return result;
}

export async function signIn(token) {
  const response = await fetch(`${ROOT}/session`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(answer.message ?? answer.errors?.[0]?.message ?? "The token was refused.", "UNAUTHENTICATED");
  }
  await loadViewer();
}

export async function signOut() {
  const response = await fetch(`${ROOT}/session`, { method: "DELETE" }).catch(() => null);
  if (!response?.ok) throw new ApiError("The server does not answer, so the session goes on. Try again.", "OFFLINE");
  viewer.value = null;
}

export async function loadViewer() {
  try {
    viewer.value = (await request(ViewerDocument)).viewer;
  } catch (error) {
    if (error.code !== "UNAUTHENTICATED") throw error;
  }
}

const RANKS = { VIEWER: 1, OPERATOR: 2, ADMIN: 3 };
export const may = (role) => RANKS[viewer.value?.role] >= RANKS[role];

// ---------------------------------------------------------------- subscriptions

const SOCKET_TRIES = 3;
let socketFailures = 0;

const socket = createSocket({
  url: () => `${location.origin.replace(/^http/, "ws")}${ROOT}/graphql`,
  lazyCloseTimeout: 1000,
  keepAlive: 10_000,
  retryAttempts: 0,
  on: {
    connected: () => {
      socketFailures = 0;
      setConnection("live");
    },
    closed: () => {
      if (connection.value.state !== "live") socketFailures += 1;
      setConnection("offline");
    },
  },
});
const stream = createStream({
  url: `${ROOT}/graphql`,
  retryAttempts: 0,
  on: { connected: () => setConnection("live") },
});

/** Subscribes once; calls `next` with data until it ends, then `done` with an error or nothing. Returns a function that ends it. */
function subscribeOnce(query, variables, next, done) {
  // Networks that block WebSockets let a stream over HTTP pass.
  const client = socketFailures < SOCKET_TRIES ? socket : stream;
  return client.subscribe(
    { query, variables },
    {
      next: ({ data, errors }) => {
        if (errors) done(new ApiError(errors[0].message, errors[0].extensions?.code));
        else next(data);
      },
      error: (error) => {
        const first = Array.isArray(error) ? error[0] : undefined;
        done(new ApiError(first?.message ?? "The connection was lost.", first?.extensions?.code ?? "OFFLINE"));
      },
      complete: () => done(),
    },
  );
}

/**
 * Subscribes again whenever it was interrupted; `variables` is asked each time. Returns a function that ends it.
 * @template Data, Variables
 * @param {Document<Data, Variables>} query
 * @param {() => Variables} variables
 * @param {(data: Data) => void} next
 * @param {(error?: ApiError) => boolean | void} [ended] false: do not subscribe again
 */
export function follow(query, variables, next, ended = () => {}) {
  let stop = () => {};
  let wait = 250;
  let timer;
  let over = false;
  const again = (error) => {
    if (over || ended(error) === false) return;
    clearTimeout(timer);
    timer = setTimeout(connect, wait);
    wait = Math.min(wait * 2, 5000);
  };
  const connect = async () => {
    try {
      // Only a WebSocket that fails while the server answers is one that is blocked.
      await request(AnswersDocument);
    } catch (error) {
      again(error);
      return;
    }
    if (over) return;
    stop = subscribeOnce(
      query,
      variables(),
      (data) => {
        wait = 250;
        next(data);
      },
      again,
    );
  };
  connect();
  return () => {
    over = true;
    clearTimeout(timer);
    stop();
  };
}

let cursor;
let followers = 0;
let stopEvents = () => {};

/** Ends the connection of a user who has signed out. */
export function stopFollowing() {
  followers += 1;
  stopEvents();
  socket.terminate();
  events.value = [];
}

/** Follows the event log from now on, without gaps through interruptions. */
export async function followEvents() {
  stopEvents();
  cursor = undefined;
  const number = ++followers;
  while (cursor === undefined && viewer.value && number === followers) {
    try {
      cursor = (await request(NewestEventDocument)).eventCursor;
    } catch {
      setConnection("offline");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  if (!viewer.value || number !== followers) return;
  const stop = follow(
    EventsDocument,
    () => ({ after: cursor }),
    ({ routingEventBatches: news }) => {
      cursor = news.at(-1).cursor;
      events.value = [...events.value, ...news].slice(-KEPT_EVENTS);
    },
    (error) => {
      setConnection("offline");
      if (error?.code === "CURSOR_EXPIRED") followEvents();
      if (error?.code === "UNAUTHENTICATED") viewer.value = null;
      return error?.code !== "CURSOR_EXPIRED" && viewer.value !== null;
    },
  );
  stopEvents = stop;
}

function setConnection(state) {
  if (connection.value.state !== state) connection.value = { state, since: Date.now() };
}

// ---------------------------------------------------------------- queries in components

const REFRESH_MS = 1000;

/**
 * The result of a query: {data, error, loading, reload}. It is read again when its variables change, when an event
 * comes that `concerns` it, at most once a second, every `everyMs` while the page is seen, and when the connection is back.
 * @template Data, Variables
 * @param {Document<Data, Variables>} query
 * @param {Variables} [variables]
 * @param {((event: Event) => boolean) | null} [concerns]
 * @returns {{ data: Data | undefined, error: ApiError | undefined, loading: boolean, reload: () => void }}
 */
export function useQuery(query, variables, concerns = null, everyMs = 0) {
  const key = JSON.stringify(variables ?? {});
  const [state, setState] = useState({ data: undefined, error: undefined, loading: true });
  const latest = useRef({ concerns });
  const load = useRef(() => {});
  latest.current = { concerns };
  useEffect(() => {
    const abort = new AbortController();
    let timer;
    let last = 0;
    let running = false;
    let again = false;
    const read = async () => {
      if (running) {
        again = true;
        return;
      }
      running = true;
      last = Date.now();
      try {
        const data = await request(query, JSON.parse(key), { signal: abort.signal });
        if (!abort.signal.aborted) setState({ data, error: undefined, loading: false });
      } catch (error) {
        if (!abort.signal.aborted) setState((before) => ({ ...before, error, loading: false }));
      } finally {
        running = false;
        if (again && !abort.signal.aborted) {
          again = false;
          soon();
        }
      }
    };
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(read, Math.max(last + REFRESH_MS - Date.now(), 0));
    };
    load.current = read;
    setState((before) => ({ ...before, loading: true }));
    read();
    let seen = events.value.at(-1)?.cursor;
    const unsubscribe = events.subscribe((list) => {
      const newest = list.at(-1)?.cursor;
      if (newest === seen) return;
      const before = Number(seen ?? 0);
      seen = newest;
      const { concerns: test } = latest.current;
      if (test && list.some((event) => Number(event.cursor) > before && test(event))) soon();
    });
    const ticking = everyMs && setInterval(() => document.hidden || soon(), everyMs);
    let state = connection.value.state;
    const reconnected = connection.subscribe(({ state: now }) => {
      if (now === "live" && state === "offline") soon();
      state = now;
    });
    return () => {
      abort.abort();
      clearTimeout(timer);
      clearInterval(ticking);
      unsubscribe();
      reconnected();
    };
  }, [query, key]);
  return { ...state, reload: () => load.current() };
}
