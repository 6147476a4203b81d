import { connection, events, request } from "../api.js";
import { EarlierEventsDocument } from "../operations.js";
import { route, setQuery } from "../router.js";
import { Events as List, Action, Head, Search, Select, count, words } from "../ui.js";
import { html, useState } from "../vendor/preact.js";

/** @type {import("../operations.js").RoutingEventKind[]} */
const KINDS = ["JOB_SUBMITTED", "JOB_ROUTED", "JOB_REFUSED", "JOB_PROGRESS", "JOB_LAUNCHED", "JOB_STARTED", "JOB_FINISHED", "JOB_RETRIED",
  "JOB_CANCEL_REQUESTED", "JOB_CANCELLED", "HOST_CREATED", "HOST_UPDATED", "HOST_HEALTH_CHANGED", "HOST_EJECTED", "HOST_COOLDOWN", "HOST_RESERVED",
  "HOST_RELEASED", "HOST_DRAINED", "HOST_EMPTY", "HOST_RESUMED", "HOST_LOST", "HOST_SWEPT", "HOST_DELETED"];

export function EventsPage() {
  const { query } = route.value;
  const [paused, setPaused] = useState(null);
  const [earlier, setEarlier] = useState({ key: "", list: [], before: undefined, more: true });
  const key = `${query.kind ?? ""}`;
  const older = earlier.key === key ? earlier : { key, list: [], before: undefined, more: true };
  const live = paused ?? events.value;
  const newer = events.value.filter(({ cursor }) => paused && Number(cursor) > Number(paused.at(-1)?.cursor ?? 0)).length;
  const text = (event) => `${event.message} ${event.hostName} ${event.job?.name ?? ""} ${event.actor}`.toLowerCase();
  const wanted = (event) => (!query.kind || event.kind === query.kind || event.kind.startsWith(`${query.kind}_`)) && (!query.q || text(event).includes(query.q.toLowerCase()));
  const seen = new Set(live.map(({ cursor }) => cursor));
  const all = [...older.list.filter(({ cursor }) => !seen.has(cursor)), ...live].filter(wanted).reverse();
  const load = async () => {
    const kinds = query.kind ? KINDS.filter((kind) => kind === query.kind || kind.startsWith(`${query.kind}_`)) : undefined;
    const before = older.before ?? live[0]?.cursor;
    const { routingEvents } = await request(EarlierEventsDocument, { before, filters: kinds ? { kinds } : null });
    setEarlier({
      key,
      list: [...routingEvents.edges.map(({ node }) => node), ...older.list],
      before: routingEvents.pageInfo.startCursor ?? before,
      more: routingEvents.pageInfo.hasPreviousPage,
    });
  };
  return html`<${Head} title="Events" badge=${html`<span class="soft">${paused ? `paused, ${count(newer, "new event")}` : connection.value.state}</span>`}>
      <button onClick=${() => setPaused(paused ? null : events.value)}>${paused ? "Go on" : "Pause"}</button>
    </${Head}>
    <div class="filters">
      <${Search} label="Text" value=${query.q} onValue=${(q) => setQuery({ q })} />
      <${Select} label="Kind" value=${query.kind} onValue=${(kind) => setQuery({ kind })} options=${[["", "All kinds"], ["JOB", "all of jobs"], ["HOST", "all of hosts"], ...KINDS.map((kind) => [kind, words(kind)])]} />
    </div>
    <section class="panel" aria-label="Events"><${List} list=${all} empty="No event since this page was opened matches." /></section>
    ${older.more && html`<div class="actions"><${Action} run=${load}>Load earlier events</${Action}></div>`}`;
}
