import { request, useQuery } from "../api.js";
import { PlanDocument, SandboxDocument } from "../operations.js";
import { Action, Empty, Head, HostLink, JobLink, Loaded, Panel, State, count, memory, words } from "../ui.js";
import { html, useState } from "../vendor/preact.js";

const MOST_JOBS = 100;
/** @type {import("../operations.js").HostInput} */
const NEW_HOST = { name: "", executorType: "DOCKER", region: "", routingWeight: 100, maxConcurrentJobs: 10, maxMemoryMb: 16384 };

const CONFIGS = { DOCKER: undefined, SIMULATED: { accept: "any" } };

export function WhatIf() {
  const fleet = useQuery(SandboxDocument);
  return html`<${Head} title="What if" />
    <p class="soft">Change the fleet here and see where jobs would go. Nothing is written: it is the service's own routing, on the fleet as it is now with your changes.</p>
    <${Loaded} of=${fleet}>${(data) => html`<${Sandbox} hosts=${data.hosts.edges.map(({ node }) => node)} waiting=${data.jobs.edges.map(({ node }) => node)} />`}</${Loaded}>`;
}

function Sandbox({ hosts, waiting }) {
  /** @typedef {Record<string, Partial<import("../operations.js").HostAssumption>>} Changes */
  const [changes, setChanges] = useState(/** @type {Changes} */ ({}));
  const [text, setText] = useState(JSON.stringify([{ image: "busybox", memoryLimitMb: 512, cpuLimit: 1 }], null, 2));
  const [added, setAdded] = useState(/** @type {import("../operations.js").HostInput[]} */ ([]));
  const [result, setResult] = useState(null);
  const add = () => setAdded((all) => [...all, { ...NEW_HOST, name: `new-host-${all.length + 1}` }]);
  const setNew = (at, values) => setAdded((all) => all.map((host, i) => (i === at ? { ...host, ...values } : host)));
  /** @type {(id: string, name: string, value: unknown, usual: unknown) => void} */
  const change = (id, name, value, usual) =>
    setChanges((all) => {
      /** @type {Record<string, unknown>} */
      const { [name]: _, ...others } = /** @type {any} */ (all[id] ?? {});
      const next = value === usual ? others : { ...others, [name]: value };
      const { [id]: __, ...rest } = all;
      return Object.keys(next).length ? { ...rest, [id]: next } : rest;
    });
  const plan = async () => {
    let jobs;
    try {
      jobs = JSON.parse(text);
    } catch (error) {
      throw new Error(`The jobs are not JSON: ${error.message}`);
    }
    if (!Array.isArray(jobs) || jobs.length > MOST_JOBS) throw new Error(`Give a list of at most ${MOST_JOBS} jobs.`);
    const assume = Object.entries(changes).map(([hostId, values]) => ({ hostId, ...values }));
    const [before, after] = await Promise.all([request(PlanDocument, { jobs, assume: [] }), request(PlanDocument, { jobs, assume, addHosts: added })]);
    const wrong = after.planRouting.placements.find(({ __typename }) => __typename === "ValidationFailed");
    if (wrong) throw new Error(/** @type {any} */ (wrong).message);
    setResult({ jobs, waiting, before: before.planRouting, after: after.planRouting });
  };
  if (hosts.length === 0) return html`<${Empty}>There is no host to change yet.</${Empty}>`;
  return html`
    <div class="grid uneven">
      <${Panel} title="Fleet" aside=${html`<span class="soft">${count(Object.keys(changes).length, "host")} changed, ${added.length} added</span>`}><div class="scroll" tabindex="0"><table>
        <thead><tr><th>Host</th><th>Active</th><th>Drained</th><th>Weight</th><th>Slots</th><th>Memory, MiB</th></tr></thead>
        <tbody>${hosts.map((host) => {
          const now = { ...host, maxConcurrentJobs: host.capacity.maxConcurrentJobs, maxMemoryMb: host.capacity.maxMemoryMb, ...changes[host.id] };
          const box = (name) => html`<input type="checkbox" aria-label="${words(name.replace(/[A-Z]/g, " $&"))}: ${host.name}" checked=${now[name]} onChange=${({ target }) => change(host.id, name, target.checked, host[name])} />`;
          const amount = (name, usual) => html`<input type="number" min="0" aria-label="${words(name.replace(/[A-Z]/g, " $&"))}: ${host.name}" value=${now[name] ?? ""} onInput=${({ target }) => change(host.id, name, target.value === "" ? null : Number(target.value), usual)} />`;
          return html`<tr key=${host.id} class=${changes[host.id] ? "chosen" : ""}><td><${HostLink} name=${host.name} /><br /><span class="soft">${words(host.executorType)} ${host.region}</span></td>
            <td>${box("isActive")}</td><td>${box("isDraining")}</td><td>${amount("routingWeight", host.routingWeight)}</td>
            <td>${amount("maxConcurrentJobs", host.capacity.maxConcurrentJobs)}</td><td>${amount("maxMemoryMb", host.capacity.maxMemoryMb)}</td></tr>`;
        })}${added.map((host, at) => {
          const text = (name, label) => html`<input aria-label="${label}: new host ${at + 1}" placeholder=${label} value=${host[name]} onInput=${({ target }) => setNew(at, { [name]: target.value })} />`;
          const amount = (name, label) => html`<input type="number" min="0" aria-label="${label}: new host ${at + 1}" value=${host[name] ?? ""} onInput=${({ target }) => setNew(at, { [name]: target.value === "" ? null : Number(target.value) })} />`;
          return html`<tr key=${`new-${at}`} class="chosen"><td>${text("name", "Name")}${text("region", "Region")}
              <select aria-label="Type: new host ${at + 1}" onChange=${({ target }) => setNew(at, { executorType: target.value, config: CONFIGS[target.value] })}>${Object.keys(CONFIGS).map((type) => html`<option value=${type}>${words(type)}</option>`)}</select></td>
            <td colspan="2"><button onClick=${() => setAdded((all) => all.filter((_, i) => i !== at))}>Remove</button></td>
            <td>${amount("routingWeight", "Weight")}</td><td>${amount("maxConcurrentJobs", "Slots")}</td><td>${amount("maxMemoryMb", "Memory")}</td></tr>`;
        })}</tbody></table></div>
        <div class="actions"><button onClick=${add}>Add a host</button></div></${Panel}>
      <${Panel} title="Jobs" aside=${html`<span class="soft">after those that wait already</span>`}>
        <p>${waiting.length === 0 ? "No job waits." : `${count(waiting.length, "job")} ${waiting.length === 1 ? "waits" : "wait"} already and ${waiting.length === 1 ? "is" : "are"} planned first.`}</p>
        <label class="field">A list of job inputs<textarea rows="14" value=${text} onInput=${({ target }) => setText(target.value)}></textarea></label>
        <div class="actions"><${Action} kind="primary" run=${plan}>Plan</${Action}><button onClick=${() => {
          setChanges({});
          setAdded([]);
        }} disabled=${Object.keys(changes).length + added.length === 0}>Undo all changes</button></div>
      </${Panel}>
    </div>
    ${result && html`<${Outcome} ...${result} />`}`;
}

function Outcome({ jobs, waiting, before, after }) {
  const place = (placement) =>
    placement.__typename === "Placement" ? html`<${HostLink} name=${placement.hostName} />` : html`${placement.verdict ? html`<${State} of=${placement.verdict} />` : ""} ${placement.message}`;
  const placed = ({ placements, waitingPlaced }) => waitingPlaced + placements.filter(({ __typename }) => __typename === "Placement").length;
  const hostOf = (plan, job) => plan.waiting.find((entry) => entry.job?.id === job.id)?.hostName;
  const rows = [
    ...waiting.map((job) => {
      const [one, other] = [hostOf(before, job), hostOf(after, job)];
      const shown = (name) => (name ? html`<${HostLink} name=${name} />` : "waits on");
      return [html`<${JobLink} job=${job} />`, "waits already", shown(one), shown(other), one !== other];
    }),
    ...jobs.map((job, i) => {
      const [one, other] = [before.placements[i], after.placements[i]];
      const help = other.suggestions?.[0]?.message;
      const differs = one.hostName !== other.hostName || one.__typename !== other.__typename;
      return [job.name || job.image, job.memoryLimitMb ? memory(job.memoryLimitMb) : "", place(one), html`${place(other)}${help && html`<br /><span class="soft">${help}</span>`}`, differs];
    }),
  ];
  return html`<${Panel} title="Where they would go" aside=${html`<span class="soft" role="status">${placed(before)} of ${rows.length} now, ${placed(after)} with the changes</span>`}><div class="scroll" tabindex="0"><table>
    <thead><tr><th>Job</th><th>Now</th><th>With the changes</th><th><span class="sr">Difference</span></th></tr></thead>
    <tbody>${rows.map(([name, about, one, other, differs], i) => html`<tr key=${i}><td>${name}<br /><span class="soft">${about}</span></td>
      <td>${one}</td><td>${other}</td><td>${differs ? html`<strong>≠ changed</strong>` : html`<span class="soft">same</span>`}</td></tr>`)}</tbody></table></div></${Panel}>`;
}
