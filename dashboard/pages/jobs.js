import { may, mutate, useQuery } from "../api.js";
import { CancelJobDocument, CancelJobsDocument, ComparedJobsDocument, JobsDocument, RetryJobDocument, RetryJobsDocument } from "../operations.js";
import { href, route, setQuery } from "../router.js";
import { Action, Ago, Empty, Head, HostLink, JobLink, Labels, Lasting, Loaded, Search, Select, State, ask, count, words } from "../ui.js";
import { html, useState } from "../vendor/preact.js";
import { SubmitForm } from "../submit_form.js";

export const STATUSES = ["PENDING", "ROUTED", "LAUNCHING", "RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"];
export const FAILURES = ["EXIT_CODE", "OUT_OF_MEMORY", "TIMEOUT", "QUEUE_TIMEOUT", "NOT_STARTED", "HOST_FAULT", "VANISHED", "SERVICE_ERROR"];
const ORDERS = [["SUBMITTED_DESC", "Newest first"], ["SUBMITTED_ASC", "Oldest first"], ["FINISHED_DESC", "Last ended first"], ["QUEUE", "Queue order"]];
const COLUMNS = {
  image: ["Image", (job) => html`<span class="mono">${job.image}</span>`],
  host: ["Host", (job) => html`<${HostLink} name=${job.host?.name} />`],
  submitted: ["Submitted", (job) => html`<${Ago} at=${job.submittedAt} />`],
  waited: ["Waited", (job) => html`<${Lasting} since=${job.queuedAt} until=${job.routedAt ?? job.finishedAt} />`],
  ran: ["Ran", (job) => html`<${Lasting} since=${job.startedAt} until=${job.finishedAt} />`],
  result: ["Result", (job) => (job.failure ? html`<span title=${job.error}>${words(job.failure)}${job.exitCode ? ` ${job.exitCode}` : ""}</span>` : (job.exitCode ?? html`<span class="soft">–</span>`))],
  labels: ["Labels", (job) => html`<${Labels} of=${job.labelList} />`],
  attempt: ["Attempt", (job) => `${job.attempt} of ${Math.max(job.maxAttempts, job.attempt)}`],
  priority: ["Priority", (job) => job.priority],
  by: ["Submitted by", (job) => job.submittedBy],
};
const USUAL = ["image", "host", "submitted", "waited", "ran", "result", "labels"];
const stored = () => JSON.parse(localStorage.getItem("job-columns") ?? "null") ?? USUAL;

/** The filter input for what stands in the address. */
function filtersOf(query) {
  const labels = (query.label ?? "").split(",").filter(Boolean).map((pair) => pair.split(/=(.*)/s, 2));
  const status = query.status === "failed" ? ["FAILED", "TIMED_OUT"] : query.status ? [query.status] : undefined;
  return {
    ...(query.q && { nameContains: query.q }),
    ...(query.image && { imageContains: query.image }),
    ...(status && { status }),
    ...(query.failure && { failure: [query.failure] }),
    ...(query.waiting && { waitingOn: [query.waiting] }),
    ...(labels.length && { labels: Object.fromEntries(labels.map(([name, value]) => [name, value ?? ""])) }),
    ...(query.host && { hostName: query.host }),
    ...(query.since && { submittedAfter: new Date(Date.now() - Number(query.since) * 3600e3).toISOString().slice(0, 16) + ":00Z" }),
  };
}

export function Jobs() {
  const { query } = route.value;
  const [columns, setColumns] = useState(stored);
  const [selected, setSelected] = useState([]);
  const filters = filtersOf(query);
  /** @type {import("../operations.js").JobsQueryVariables} */
  const variables = { filters, order: /** @type {any} */ (query.order ?? "SUBMITTED_DESC"), first: 50, after: query.after };
  const result = useQuery(JobsDocument, variables, (event) => event.kind.startsWith("JOB_") && !query.after);
  const set = (changes) => setQuery({ after: undefined, ...changes });
  const toggle = (id) => setSelected((all) => (all.includes(id) ? all.filter((one) => one !== id) : [...all, id]));
  const choose = (name, on) => {
    const next = Object.keys(COLUMNS).filter((one) => (one === name ? on : columns.includes(one)));
    localStorage.setItem("job-columns", JSON.stringify(next));
    setColumns(next);
  };
  return html`
    <${Head} title="Jobs">
      <a class="button" href=${href("/compare", { ids: selected.join() })} aria-disabled=${selected.length !== 2} hidden=${selected.length !== 2}>Compare</a>
      ${may("OPERATOR") && html`<button class="primary" onClick=${() => setQuery({ submit: "1" })}>Submit a job</button>`}
    </${Head}>
    <div class="filters">
      <${Search} label="Name" value=${query.q} onValue=${(q) => set({ q })} />
      <${Search} label="Image" value=${query.image} onValue=${(image) => set({ image })} />
      <${Search} label="Label (team=ml)" value=${query.label} onValue=${(label) => set({ label })} />
      <${Select} label="Status" value=${query.status} onValue=${(status) => set({ status })}
        options=${[["", "All states"], ["failed", "failed or timed out"], ...STATUSES.map((status) => [status, words(status)])]} />
      <${Select} label="Why it failed" value=${query.failure} onValue=${(failure) => set({ failure })}
        options=${[["", "All results"], ...FAILURES.map((failure) => [failure, words(failure)])]} />
      <${Select} label="Submitted" value=${query.since} onValue=${(since) => set({ since })}
        options=${[["", "Any time"], ["1", "Last hour"], ["24", "Last day"], ["168", "Last week"]]} />
      <${Select} label="Order" value=${query.order ?? "SUBMITTED_DESC"} onValue=${(order) => set({ order })} options=${ORDERS} />
      <label class="check"><input type="checkbox" checked=${query.status === "failed"} onChange=${({ target }) => set({ status: target.checked ? "failed" : undefined })} />Failed only</label>
      ${query.host && html`<button onClick=${() => set({ host: undefined })}>Host ${query.host} ✕</button>`}
      ${query.waiting && html`<button onClick=${() => set({ waiting: undefined })}>Waits for ${words(query.waiting)} ✕</button>`}
      <details><summary>Columns</summary>${Object.entries(COLUMNS).map(([name, [label]]) => html`
        <label class="check"><input type="checkbox" checked=${columns.includes(name)} onChange=${({ target }) => choose(name, target.checked)} />${label}</label> `)}</details>
    </div>
    <${Loaded} of=${result}>${({ jobs }) => html`
      <p class="soft">${count(jobs.totalCount.count, "job")}${jobs.totalCount.isExact ? "" : " or more"}</p>
      ${jobs.edges.length === 0 && !jobs.pageInfo.hasNextPage
        ? html`<${Empty}>No job matches. ${Object.keys(filters).length ? html`<a href=${href("/jobs")}>Clear the filters</a>` : "Submit one, with this page or through the API."}</${Empty}>`
        : html`<section class="panel scroll" tabindex="0"><table>
          <thead><tr><th><span class="sr">Select</span></th><th>Job</th><th>State</th>${columns.map((name) => html`<th key=${name}>${COLUMNS[name][0]}</th>`)}</tr></thead>
          <tbody>${jobs.edges.map(({ node: job }) => html`<tr key=${job.id}>
            <td><input type="checkbox" aria-label="Select ${job.name || job.image}" checked=${selected.includes(job.id)} onChange=${() => toggle(job.id)} /></td>
            <td><${JobLink} job=${job} /></td><td><${State} of=${job.status} /></td>
            ${columns.map((name) => html`<td key=${name}>${COLUMNS[name][1](job)}</td>`)}</tr>`)}</tbody></table></section>`}
      <div class="actions">
        ${query.after && html`<button onClick=${() => set({})}>Newest</button>`}
        ${jobs.pageInfo.hasNextPage && html`<button onClick=${() => setQuery({ after: jobs.pageInfo.endCursor })}>${jobs.edges.length < 50 ? "Search further" : "Next page"}</button>`}
        ${may("OPERATOR") && selected.length > 0 && html`
          <${Action} run=${() => each(selected, CancelJobDocument, "cancelled")} confirm="Cancel ${count(selected.length, "job")}?">Cancel selected</${Action}>
          <${Action} run=${() => each(selected, RetryJobDocument, "retried")}>Retry selected</${Action}>`}
        ${may("OPERATOR") && Object.keys(filters).length > 0 && jobs.totalCount.count > 0 && html`
          <${Action} run=${() => changeAll(CancelJobsDocument, filters, "Cancel", "cancelled")}>Cancel all that match…</${Action}>
          <${Action} run=${() => changeAll(RetryJobsDocument, filters, "Retry", "retried")}>Retry all that match…</${Action}>`}
      </div>`}</${Loaded}>
    ${query.submit && html`<${SubmitForm} onClose=${() => setQuery({ submit: undefined })} />`}`;
}

/**
 * @typedef {import("../operations.js").Exact<{ filters: import("../operations.js").JobFilter, dryRun: boolean }>} Wanted
 * @param {import("../api.js").Document<any, Wanted>} document
 */
async function changeAll(document, filters, verb, done) {
  const planned = await mutate(document, { filters, dryRun: true });
  if (planned.matched === 0) return `No job that matches can be ${done}.`;
  const many = `${count(planned.matched, "job")}${planned.more ? ", the oldest of those that match" : ""}`;
  if (!(await ask(`${verb} ${many}?`))) return "";
  const { changed } = await mutate(document, { filters, dryRun: false });
  return `${count(changed, "job")} ${done}.`;
}

/** @param {import("../api.js").Document<any, { id: string }>} document */
async function each(ids, document, done) {
  const results = await Promise.allSettled(ids.map((id) => mutate(document, { id })));
  const refused = results.filter(({ status }) => status === "rejected");
  return `${count(ids.length - refused.length, "job")} ${done}.${refused.length ? ` ${/** @type {PromiseRejectedResult} */ (refused[0]).reason.message}` : ""}`;
}

// ---------------------------------------------------------------- two jobs beside each other


export function Compare() {
  const [a, b] = (route.value.query.ids ?? "").split(",");
  const result = useQuery(ComparedJobsDocument, { a: a || "-", b: b || "-" });
  const text = (value) => (value && typeof value === "object" ? JSON.stringify(value) : String(value ?? "") || "–");
  return html`<${Head} title="Two jobs" />
    <${Loaded} of=${result}>${(found) =>
      !found.a || !found.b
        ? html`<${Empty}>One of the jobs does not exist any more.</${Empty}>`
        : html`<section class="panel scroll" tabindex="0"><table>
          <thead><tr><th><span class="sr">Field</span></th><th><${JobLink} job=${found.a} /></th><th><${JobLink} job=${found.b} /></th></tr></thead>
          <tbody>${Object.keys(found.a).filter((name) => name !== "id").map((name) => {
            const [one, other] = [text(found.a[name]), text(found.b[name])];
            return html`<tr key=${name}><th scope="row">${words(name.replace(/[A-Z]/g, " $&"))}</th>
              ${[one, other].map((value) => html`<td class="mono">${one === other ? value : html`<strong>≠ ${value}</strong>`}</td>`)}</tr>`;
          })}</tbody></table></section>`}</${Loaded}>`;
}
