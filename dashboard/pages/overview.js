import { events, useQuery } from "../api.js";
import { OverviewDocument } from "../operations.js";
import { href } from "../router.js";
import { Chart } from "../chart.js";
import { Ago, Bar, Empty, Events, Head, HostLink, Loaded, Panel, State, count, duration, hostStates, memory, number, words } from "../ui.js";
import { html } from "../vendor/preact.js";


export function Overview() {
  const result = useQuery(OverviewDocument, {}, () => true, 5000);
  return html`<${Head} title="Overview" />
    <${Loaded} of=${result}>${(data) => html`<${Summary} data=${data} />`}</${Loaded}>
    <${Panel} title="Last events" aside=${html`<a href=${href("/events")}>All events</a>`}>
      <${Events} list=${events.value.slice(-12).reverse()} empty="Nothing has happened since this page was opened." />
    </${Panel}>`;
}

const SERIES = [
  { label: "submitted", of: ({ figures }) => figures.submitted, tone: "--accent" },
  { label: "succeeded", of: ({ figures }) => figures.succeeded, tone: "--good" },
  { label: "failed", of: ({ figures }) => figures.failed + figures.timedOut, tone: "--bad", dash: [5, 4] },
];

/** @param {{ data: import("../operations.js").OverviewQuery }} props */
function Summary({ data: { jobStats, queue, capacity, hosts } }) {
  const { unfinished, total, buckets } = jobStats;
  const all = hosts.edges.map(({ node }) => node);
  const attention = all.filter((host) => hostStates(host).some((state) => !["HEALTHY", "INACTIVE"].includes(state)));
  return html`
    <div class="tiles">
      <a class="tile" href=${href("/jobs", { status: "RUNNING" })}><b>${number(unfinished.running)}</b><span>running</span></a>
      <a class="tile" href=${href("/jobs", { status: "LAUNCHING" })}><b>${number(unfinished.launching + unfinished.routed)}</b><span>starting</span></a>
      <a class="tile" href=${href("/queue")}><b>${number(unfinished.pending)}</b><span>waiting</span></a>
      <a class="tile" href=${href("/jobs", { status: "SUCCEEDED" })}><b>${number(total.succeeded)}</b><span>succeeded in the last hour</span></a>
      <a class="tile" href=${href("/jobs", { status: "failed" })}><b>${number(total.failed + total.timedOut)}</b><span>failed in the last hour</span></a>
    </div>
    <div class="grid">
      <${Panel} title="Jobs per minute" aside=${html`<span class="soft">last hour</span>`}>
        <${Chart} points=${buckets} series=${SERIES} summary=${`In the whole time: ${SERIES.map(({ label, of }) => `${label} ${buckets.reduce((sum, bucket) => sum + of(bucket), 0)}`).join(", ")}`} />
        <dl class="facts">
          <dt>Time in the queue</dt><dd>${duration(total.queueTime.p50)} median, 95 % at most ${duration(total.queueTime.p95)}</dd>
          <dt>Run time</dt><dd>${duration(total.runTime.p50)} median, 95 % at most ${duration(total.runTime.p95)}</dd>
          ${total.failures.length > 0 && html`<dt>Failures</dt><dd class="chips">${total.failures.map(({ reason, attempts }) =>
            html`<a class="chip" href=${href("/jobs", { failure: reason })}>${words(reason)} ${number(attempts)}</a>`)}</dd>`}
        </dl>
      </${Panel}>
      <${Panel} title="Hosts that need attention" aside=${html`<a href=${href("/fleet")}>${count(all.length, "host")}</a>`}>
        ${all.length === 0
          ? html`<${Empty}>There is no host yet. <a href=${href("/fleet", { create: "1" })}>Create the first one</a>; jobs wait until then.</${Empty}>`
          : attention.length === 0
            ? html`<${Empty}>All hosts are healthy and take jobs.</${Empty}>`
            : html`<table><tbody>${attention.slice(0, 10).map((host) => html`<tr key=${host.id}>
                <td><${HostLink} name=${host.name} /></td>
                <td><span class="chips">${hostStates(host).map((state) => html`<${State} of=${state} />`)}</span></td>
                <td>${host.health.error}</td></tr>`)}</tbody></table>`}
      </${Panel}>
      <${Panel} title="Free capacity">
        ${capacity.length === 0 ? html`<${Empty}>No host, no capacity.</${Empty}>` : html`<div class="scroll" tabindex="0"><table>
          <thead><tr><th>Type and region</th><th>Free hosts</th><th>Slots used</th><th>Memory reserved</th></tr></thead>
          <tbody>${capacity.map((group) => html`<tr>
            <td><a href=${href("/fleet", { type: group.executorType, region: group.region })}>${words(group.executorType)}</a> <span class="soft">${group.region || "no region"}</span></td>
            <td>${group.availableHosts} of ${group.hosts}</td>
            <td><${Bar} used=${group.capacity.runningJobs} most=${group.capacity.maxConcurrentJobs} /></td>
            <td><${Bar} used=${group.capacity.reservedMemoryMb} most=${group.capacity.maxMemoryMb} show=${memory} /></td>
          </tr>`)}</tbody></table></div>`}
      </${Panel}>
      <${Panel} title="What waiting jobs wait for" aside=${html`<a href=${href("/queue")}>Queue</a>`}>
        ${queue.groups.length === 0 ? html`<${Empty}>No job waits.</${Empty}>` : html`<table><tbody>${queue.groups.slice(0, 6).map((group) => html`<tr>
          <td class="number">${number(group.jobs)}</td><td><${State} of=${group.verdict} /></td>
          <td>${reasons(group.rejections)}</td><td class="soft">since <${Ago} at=${group.oldestSubmittedAt} /></td></tr>`)}</tbody></table>`}
      </${Panel}>
    </div>`;
}

export const reasons = (rejections) =>
  rejections.length === 0
    ? "their turn, or the end of their back-off"
    : [...rejections].sort((a, b) => b.hosts - a.hosts).map(({ code, hosts }) => `${words(code)} on ${count(hosts, "host")}`).join(", ");
