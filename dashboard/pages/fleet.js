import { may, mutate, useQuery } from "../api.js";
import {
  CheckHostsDocument,
  DeclareHostLostDocument,
  DeleteHostDocument,
  DrainHostDocument,
  FleetDocument,
  HostDocument,
  HostEventsDocument,
  HostHistoryDocument,
  ResumeHostDocument,
} from "../operations.js";
import { go, href, route, setQuery } from "../router.js";
import { Action, Ago, Bar, Empty, Events, Head, JobLink, Labels, Lasting, Loaded, Panel, Search, Select, State, TYPES, count, fullTime, hostStates, memory, say, words } from "../ui.js";
import { Chart } from "../chart.js";
import { html, useState } from "../vendor/preact.js";
import { HostForm } from "../host_form.js";


/** @type {[string, string, (host: import("../operations.js").HostPartsFragment) => any][]} */
const COLUMNS = [
  ["name", "Name", (host) => host.name],
  ["state", "State", (host) => hostStates(host).join()],
  ["where", "Type and region", (host) => `${host.executorType} ${host.region}`],
  ["slots", "Slots", (host) => -host.capacity.availableSlots],
  ["memory", "Memory", (host) => host.capacity.reservedMemoryMb / (host.capacity.maxMemoryMb ?? Infinity)],
  ["cpu", "CPU", (host) => host.capacity.reservedCpuCores / (host.capacity.maxCpuCores ?? Infinity)],
  ["weight", "Weight", (host) => -host.routingWeight],
  ["latency", "Latency", (host) => host.health.latencyMs ?? Infinity],
  ["labels", "Labels", (host) => host.labelList.map(({ name, value }) => name + value).join()],
];
const concernsHosts = (event) => event.kind.startsWith("HOST_") || ["JOB_ROUTED", "JOB_FINISHED", "JOB_CANCELLED"].includes(event.kind);

export function Fleet() {
  const result = useQuery(FleetDocument, {}, concernsHosts);
  const query = route.value.query;
  return html`
    <${Head} title="Fleet">
      ${may("ADMIN") && html`<${Action} run=${async () => {
        const found = await mutate(CheckHostsDocument, {});
        return `${count(found.length, "host")} checked: ${found.filter(({ health }) => health.status === "HEALTHY").length} healthy.`;
      }}>Check all</${Action}>
      <button class="primary" onClick=${() => setQuery({ create: "1" })}>Create a host</button>`}
    </${Head}>
    <div class="filters">
      <${Search} label="Name or label" value=${query.q} onValue=${(q) => setQuery({ q })} />
      <${Select} label="Type" value=${query.type} onValue=${(type) => setQuery({ type })} options=${[["", "All types"], ...TYPES.map((type) => [type, words(type)])]} />
      <${Select} label="State" value=${query.state} onValue=${(state) => setQuery({ state })}
        options=${[["", "All states"], ["attention", "needs attention"], ["free", "takes jobs now"], ...["HEALTHY", "UNHEALTHY", "UNKNOWN", "DRAINING", "INACTIVE", "EJECTED"].map((state) => [state, words(state)])]} />
      ${query.region !== undefined && html`<button onClick=${() => setQuery({ region: undefined })}>Region ${query.region || "none"} ✕</button>`}
      <${Select} label="Group" value=${query.group} onValue=${(group) => setQuery({ group })} options=${[["", "No groups"], ["region", "by region"], ["executorType", "by type"]]} />
    </div>
    <${Loaded} of=${result}>${({ hosts }) => html`<${Hosts} hosts=${hosts.edges.map(({ node }) => node)} more=${hosts.pageInfo.hasNextPage} query=${query} />`}</${Loaded}>
    ${query.create && html`<${HostForm} onClose=${() => setQuery({ create: undefined })} onDone=${({ name }) => {
      say(`Host ${name} was created.`);
      setQuery({ create: undefined });
      result.reload();
    }} />`}`;
}

/** @param {import("../operations.js").HostPartsFragment} host */
function matches(host, { q, type, state, region }) {
  const text = [host.name, host.region, ...host.labelList.map(({ name, value }) => `${name}=${value}`)].join(" ").toLowerCase();
  const states = hostStates(host);
  return (
    (!q || text.includes(q.toLowerCase())) &&
    (!type || host.executorType === type) &&
    (region === undefined || host.region === region) &&
    (!state ||
      (state === "attention" && states.some((one) => !["HEALTHY", "INACTIVE"].includes(one))) ||
      (state === "free" && states.join() === "HEALTHY" && host.capacity.availableSlots > 0) ||
      states.includes(state))
  );
}

const SHOWN = 200;

function Hosts({ hosts, more, query }) {
  const [most, setMost] = useState(SHOWN);
  const found = hosts.filter((host) => matches(host, query));
  const [, , value] = COLUMNS.find(([name]) => name === (query.sort ?? "name").replace("-", "")) ?? COLUMNS[0];
  const sign = query.sort?.startsWith("-") ? -1 : 1;
  const sorted = [...found].sort((a, b) => (value(a) < value(b) ? -sign : value(a) > value(b) ? sign : a.name < b.name ? -1 : 1));
  if (hosts.length === 0) return html`<${Empty}>There is no host yet. Create one, and waiting jobs start by themselves.</${Empty}>`;
  if (found.length === 0) return html`<${Empty}>No host matches. <button class="link" onClick=${() => go(href("/fleet"))}>Clear the filters</button></${Empty}>`;
  /** @type {[string, import("../operations.js").HostPartsFragment[]][]} */
  const groups = query.group ? Object.entries(Object.groupBy(sorted, (host) => host[query.group] || "none")).sort() : [["", sorted]];
  return html`<p class="soft">${count(found.length, "host")}${found.length < hosts.length ? ` of ${hosts.length}` : ""}${more ? ". The first 1,000 by name are shown; the API has all." : ""}</p>
    ${groups.map(([title, members]) => html`<section class="panel scroll" tabindex="0" key=${title}>
      ${title && html`<header><h2>${title}</h2><span class="soft">${count(members.length, "host")}</span></header>`}
      <table>
        <thead><tr>${COLUMNS.map(([name, label]) => {
          const direction = query.sort === name || (!query.sort && name === "name") ? "ascending" : query.sort === `-${name}` ? "descending" : undefined;
          return html`<th key=${name} aria-sort=${direction}><button onClick=${() => setQuery({ sort: direction === "ascending" ? `-${name}` : name })}>${label}${direction ? (direction === "ascending" ? " ↑" : " ↓") : ""}</button></th>`;
        })}</tr></thead>
        <tbody>${members.slice(0, most).map((host) => html`<${HostRow} key=${host.id} host=${host} />`)}</tbody>
      </table>
      ${members.length > most && html`<p class="empty"><button onClick=${() => setMost(most + 5 * SHOWN)}>Show more of ${members.length}</button></p>`}
    </section>`)}`;
}

/** @param {{ host: import("../operations.js").HostPartsFragment }} props */
const HostRow = ({ host }) => html`<tr>
  <td><a class="name" href=${href(`/fleet/${encodeURIComponent(host.name)}`)}>${host.name}</a></td>
  <td><span class="chips">${hostStates(host).map((state) => html`<${State} of=${state} />`)}</span></td>
  <td>${words(host.executorType)}<br /><span class="soft">${host.region || "no region"}</span></td>
  <td><${Bar} used=${host.capacity.runningJobs} most=${host.capacity.maxConcurrentJobs} /></td>
  <td><${Bar} used=${host.capacity.reservedMemoryMb} most=${host.capacity.maxMemoryMb} show=${memory} /></td>
  <td><${Bar} used=${host.capacity.reservedCpuCores} most=${host.capacity.maxCpuCores} show=${(cores) => String(+cores.toFixed(2))} /></td>
  <td class="number">${host.routingWeight}</td>
  <td class="number">${host.health.latencyMs === null ? "–" : `${host.health.latencyMs.toFixed(0)} ms`}</td>
  <td><${Labels} of=${host.labelList} /></td>
</tr>`;

// ---------------------------------------------------------------- one host


export function Host({ name }) {
  const concerns = (event) => event.host?.name === name || event.hostName === name;
  const result = useQuery(HostDocument, { name }, concerns);
  return html`<${Loaded} of=${result}>${({ host }) =>
    host === null
      ? html`<${Head} title=${name} /><${Empty}>There is no host of this name. It may have been deleted. <a href=${href("/fleet")}>All hosts</a></${Empty}>`
      : html`<${OneHost} host=${host} reload=${result.reload} />`}</${Loaded}>`;
}

/** @param {{ host: NonNullable<import("../operations.js").HostQuery["host"]>, reload: () => void }} props */
function OneHost({ host, reload }) {
  const [editing, setEditing] = useState(false);
  const act = (document, done) => async () => {
    await mutate(document, { id: host.id });
    reload();
    return done;
  };
  return html`
    <${Head} title=${host.name} badge=${hostStates(host).map((state) => html`<${State} of=${state} />`)}>
      ${may("ADMIN") && html`
        ${host.isDraining
          ? html`<${Action} run=${act(ResumeHostDocument, "The host takes jobs again.")}>Resume</${Action}>`
          : html`<${Action} run=${act(DrainHostDocument, "The host takes no new jobs.")}>Drain</${Action}>`}
        <${Action} run=${async () => {
          const [found] = await mutate(CheckHostsDocument, { ids: [host.id] });
          reload();
          return `${words(found.health.status)}. ${found.health.error ?? ""}`;
        }}>Check</${Action}>
        <button onClick=${() => setEditing(true)}>Edit</button>
        ${host.health.status !== "HEALTHY" && html`<${Action} kind="danger" confirm="${host.name} will not come back: its jobs run again elsewhere. If they still run there, they run twice." run=${act(DeclareHostLostDocument, "Its jobs run again elsewhere.")}>Declare lost</${Action}>`}
        <${Action} kind="danger" confirm="Delete host ${host.name}? Its past decisions stay." run=${async () => {
          await mutate(DeleteHostDocument, { id: host.id });
          go(href("/fleet"));
          return `Host ${host.name} was deleted.`;
        }}>Delete</${Action}>`}
    </${Head}>
    ${host.health.error && html`<div class="notice ${host.health.status === "HEALTHY" ? "warn" : "bad"}">${host.health.error}</div>`}
    <div class="grid">
      <${Panel} title="Capacity">
        <dl class="facts">
          <dt>Slots</dt><dd><${Bar} used=${host.capacity.runningJobs} most=${host.capacity.maxConcurrentJobs} /></dd>
          <dt>Memory</dt><dd><${Bar} used=${host.capacity.reservedMemoryMb} most=${host.capacity.maxMemoryMb} show=${memory} /></dd>
          <dt>CPU</dt><dd><${Bar} used=${host.capacity.reservedCpuCores} most=${host.capacity.maxCpuCores} show=${(cores) => String(+cores.toFixed(2))} /></dd>
          <dt>Weight</dt><dd>${host.routingWeight}</dd>
        </dl>
      </${Panel}>
      <${Panel} title="Host">
        <dl class="facts">
          <dt>Type</dt><dd>${words(host.executorType)}${host.engine && `, ${host.engine}`}</dd>
          <dt>Region</dt><dd>${host.region || "none"}</dd>
          <dt>Labels</dt><dd><${Labels} of=${host.labelList} /></dd>
          <dt>Last check</dt><dd><${Ago} at=${host.health.lastCheckedAt} />${host.health.latencyMs !== null && `, ${host.health.latencyMs.toFixed(0)} ms`}</dd>
          <dt>Created</dt><dd>${fullTime(host.createdAt)}</dd>
          <dt>Settings</dt><dd><pre>${JSON.stringify(host.config, null, 2)}</pre></dd>
        </dl>
      </${Panel}>
      <${Panel} title="Jobs" aside=${html`<a href=${href("/jobs", { host: host.name })}>All of its jobs</a>`}>
        ${host.jobs.edges.length === 0 ? html`<${Empty}>It has had no job.</${Empty}>` : html`<table><tbody>${host.jobs.edges.map(({ node: job }) => html`<tr key=${job.id}>
          <td><${JobLink} job=${job} /></td><td><${State} of=${job.status} /></td>
          <td class="number"><${Lasting} since=${job.startedAt} until=${job.finishedAt} /></td></tr>`)}</tbody></table>`}
      </${Panel}>
      <${Panel} title="Why it was chosen">
        ${host.decisions.edges.length === 0 ? html`<${Empty}>It has not been chosen yet.</${Empty}>` : html`<table><tbody>${host.decisions.edges.map(({ node }) => html`<tr key=${node.id}>
          <td class="soft"><${Ago} at=${node.decidedAt} /></td><td><${JobLink} job=${node.job} /></td><td>${node.reason}</td></tr>`)}</tbody></table>`}
      </${Panel}>
    </div>
    <${History} host=${host} />
    <${HostEvents} host=${host} />
    ${editing && html`<${HostForm} host=${host} onClose=${() => setEditing(false)} onDone=${() => {
      setEditing(false);
      say(`Host ${host.name} was changed.`);
      reload();
    }} />`}`;
}

function HostEvents({ host }) {
  const result = useQuery(HostEventsDocument, { name: host.name }, (event) => event.host?.id === host.id);
  return html`<${Panel} title="Events"><${Loaded} of=${result}>${({ host: found }) =>
    html`<${Events} list=${(found?.events.edges ?? []).map(({ node }) => node)} />`}</${Loaded}></${Panel}>`;
}

const RANGES = [["1", "last hour"], ["12", "last 12 hours"], ["168", "last week"], ["2160", "last 90 days"]];
const HISTORY_MS = 60_000;

function History({ host }) {
  const [hours, setHours] = useState("1");
  // To the minute, so that it is not asked for at each drawing.
  const since = new Date(Math.floor(Date.now() / HISTORY_MS) * HISTORY_MS - Number(hours) * 3600e3).toISOString();
  const result = useQuery(HostHistoryDocument, { name: host.name, since }, null, HISTORY_MS);
  return html`<${Panel} title="Use over time" aside=${html`<${Select} label="Range" value=${hours} onValue=${setHours} options=${RANGES} />`}>
    <${Loaded} of=${result}>${({ host: found }) => {
      const points = found?.history ?? [];
      if (points.length < 2) return html`<${Empty}>It is recorded once a minute; come back soon.</${Empty}>`;
      const most = Math.max(...points.map(({ mostJobs }) => mostJobs));
      const latencies = points.flatMap(({ latencyMs }) => (latencyMs === null ? [] : [latencyMs]));
      const slowest = latencies.length ? `, probes took up to ${Math.max(...latencies).toFixed(0)} ms` : "";
      return html`<${Chart} points=${points} summary=${`At most ${count(most, "job")} at the same time${slowest}`} series=${[
        { label: "jobs", of: ({ runningJobs }) => runningJobs, tone: "--accent" },
        { label: "most jobs", of: ({ mostJobs }) => mostJobs, tone: "--soft", dash: [5, 4] },
        { label: "latency in ms", of: ({ latencyMs }) => latencyMs, tone: "--bad" },
      ]} /><p class="soft">At most ${count(most, "job")} at the same time${slowest}.</p>`;
    }}</${Loaded}>
  </${Panel}>`;
}
