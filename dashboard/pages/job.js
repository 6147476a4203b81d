import { ROOT, may, mutate, useQuery } from "../api.js";
import { CancelJobDocument, JobDocument, JobEventsDocument, JobsAheadDocument, RetryJobDocument } from "../operations.js";
import { href } from "../router.js";
import { Logs } from "../logs.js";
import { SubmitForm } from "../submit_form.js";
import { Action, Ago, Empty, Events, Head, HostLink, Labels, Lasting, Loaded, Panel, State, clockTime, count, duration, fullTime, memory, millis, words } from "../ui.js";
import { html, useState } from "../vendor/preact.js";
import { reasons } from "./overview.js";

/** @typedef {import("../operations.js").JobPartsFragment} JobParts */

const ENDED = ["SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"];

export function Job({ id }) {
  const result = useQuery(JobDocument, { id }, (event) => event.job?.id === id);
  return html`<${Loaded} of=${result}>${({ job }) =>
    job === null
      ? html`<${Head} title="Job" /><${Empty}>There is no such job. It may have been deleted after its retention time. <a href=${href("/jobs")}>All jobs</a></${Empty}>`
      : html`<${OneJob} job=${job} reload=${result.reload} />`}</${Loaded}>`;
}

/** @param {{ job: JobParts, reload: () => void }} props */
function OneJob({ job, reload }) {
  const [again, setAgain] = useState(false);
  const ended = ENDED.includes(job.status);
  const act = (document, done) => async () => {
    await mutate(document, { id: job.id });
    reload();
    return done;
  };
  return html`
    <${Head} title=${job.name || job.image} badge=${html`<${State} of=${job.status} />`}>
      ${may("OPERATOR") && html`
        ${!ended && html`<${Action} kind="danger" disabled=${job.cancelRequestedAt !== null} run=${act(CancelJobDocument, "The job is being cancelled.")}>Cancel</${Action}>`}
        ${ended && job.status !== "SUCCEEDED" && html`<${Action} run=${act(RetryJobDocument, "Another attempt was opened.")}>Retry</${Action}>`}
        <button onClick=${() => setAgain(true)}>Submit again…</button>`}
    </${Head}>
    <${VerdictNotice} job=${job} ended=${ended} />
    ${job.waitingOn && html`<${Waiting} job=${job} />`}
    <div class="grid">
      <${Panel} title="What happened" aside=${html`<span class="soft">attempt ${job.attempt} of ${Math.max(job.maxAttempts, job.attempt)}</span>`}>
        <${Timeline} entries=${job.timeline} />
      </${Panel}>
      <${Panel} title="Job">
        <dl class="facts">
          <dt>Image</dt><dd class="mono">${job.image}</dd>
          <dt>Command</dt><dd class="mono">${[...job.entryPoint, ...job.command].join(" ") || "the image's"}</dd>
          <dt>Host</dt><dd><${HostLink} name=${job.host?.name} />${job.reservedHost && html` <span class="soft">room is reserved on ${job.reservedHost.name}</span>`}</dd>
          <dt>Waited, ran</dt><dd><${Lasting} since=${job.queuedAt} until=${job.routedAt ?? job.finishedAt} />, <${Lasting} since=${job.startedAt} until=${job.finishedAt} /></dd>
          <dt>Limits</dt><dd>${job.memoryLimitMb === null ? "no memory limit" : memory(job.memoryLimitMb)}, ${job.cpuLimit === null ? "no CPU limit" : count(job.cpuLimit, "core")}, ${duration(job.timeoutSeconds)}</dd>
          <dt>Labels</dt><dd><${Labels} of=${job.labelList} /></dd>
          <dt>Environment</dt><dd class="mono">${job.environmentNames.join(", ") || "–"}</dd>
          <dt>Submitted</dt><dd><${Ago} at=${job.submittedAt} /> by ${job.submittedBy || "an earlier version"}, priority ${job.priority}</dd>
          <dt>Id</dt><dd class="mono">${job.id}</dd>
        </dl>
        <details><summary>As a command that submits it again</summary><pre class="scroll" tabindex="0">${command(job)}</pre></details>
        <details><summary>As JSON</summary><pre class="scroll">${JSON.stringify(spec(job), null, 2)}</pre></details>
      </${Panel}>
    </div>
    <${Logs} job=${job} ended=${ended} />
    <${Why} decisions=${job.decisions} />
    <${JobEvents} id=${job.id} />
    ${again && html`<${SubmitForm} like=${job} onClose=${() => setAgain(false)} />`}`;
}

/** @param {{ job: JobParts, ended: boolean }} props */
function VerdictNotice({ job, ended }) {
  if (job.message) return html`<div class="notice" role="status">${job.message}</div>`;
  if (!ended) return job.cancelRequestedAt ? html`<div class="notice warn">Its container is being stopped${job.cancelledBy && `, as ${job.cancelledBy} asked`}.</div>` : null;
  if (job.status === "SUCCEEDED") return null;
  const who = job.status === "CANCELLED" ? `Cancelled${job.cancelledBy ? ` by ${job.cancelledBy}` : ""}. ` : "";
  const why = job.failure && job.failure !== "EXIT_CODE" ? `${words(job.failure)[0].toUpperCase()}${words(job.failure).slice(1)}. ` : "";
  const code = job.exitCode === null ? "" : `Exit code ${job.exitCode}. `;
  return html`<div class="notice ${job.status === "CANCELLED" ? "" : "bad"}">${who}${why}${code}${job.error}</div>`;
}

/** @param {{ job: JobParts }} props */
function Waiting({ job }) {
  const { waitingOn } = job;
  const queue = useQuery(JobsAheadDocument, {}, (event) => ["JOB_ROUTED", "JOB_SUBMITTED", "JOB_CANCELLED"].includes(event.kind));
  const place = queue.data?.jobs.edges.findIndex(({ node }) => node.id === job.id) ?? -1;
  const ahead = place > 0 ? queue.data.jobs.edges.slice(0, place) : [];
  return html`<${Panel} title="Why it waits" aside=${html`<${State} of=${waitingOn.verdict} />`}>
    <p>${waitingOn.message}</p>
    <p class="soft">${reasons(waitingOn.rejections)}</p>
    ${job.notBefore && millis(job.notBefore) > Date.now() && html`<p>Not routed before ${clockTime(job.notBefore)}.</p>`}
    ${waitingOn.suggestions.length > 0 && html`<h3>What would help, each checked by routing again</h3><ul>${waitingOn.suggestions.map(({ message, hosts }) =>
      html`<li>${message} <span class="soft">${count(hosts, "host")} could take it then.</span></li>`)}</ul>`}
    ${place >= 0 && html`<p class="soft">${place === 0 ? "It is first in the queue." : html`${count(place, "job")} ${place === 1 ? "comes" : "come"} before it, like ${ahead.slice(0, 3).map(({ node }, i) => html`${i ? ", " : ""}<a href=${href(`/jobs/${node.id}`)}>${node.name || node.image}</a>`)}.`}</p>`}
  </${Panel}>`;
}

const TONES = { SUCCEEDED: "good", FAILED: "bad", TIMED_OUT: "bad" };
const LONG_GAP = 60;

/** @param {{ entries: JobParts["timeline"] }} props */
function Timeline({ entries }) {
  return html`<ol class="timeline">${entries.map((entry, i) => {
    const since = i ? (millis(entry.at) - millis(entries[i - 1].at)) / 1000 : 0;
    return html`<li key=${i} class=${TONES[entry.step] ?? ""}>
      <span class="dot" aria-hidden="true"></span>
      <span><strong>${words(entry.step)}</strong>${entry.hostName && html` on <${HostLink} name=${entry.hostName} />`}${entry.actor && html` by ${entry.actor}`}
        ${entry.attempt > 1 && html` <span class="chip">attempt ${entry.attempt}</span>`}
        ${entry.message && html`<br /><span class="soft">${entry.message}</span>`}
        ${since > LONG_GAP && html`<br /><span class="gap">⋮ ${duration(since)} later</span>`}</span>
      <time datetime=${entry.at} title=${fullTime(entry.at)}>${clockTime(entry.at)}${since > 0 && since <= LONG_GAP ? html` <small>+${duration(since)}</small>` : ""}</time></li>`;
  })}</ol>`;
}

/** @param {{ decisions: JobParts["decisions"] }} props */
function Why({ decisions }) {
  const [chosen, setChosen] = useState(0);
  if (decisions.length === 0) return html`<${Panel} title="Why here"><${Empty}>Nothing was decided yet.</${Empty}></${Panel}>`;
  const decision = decisions[Math.min(chosen, decisions.length - 1)];
  const hosts = decision.hosts.edges.map(({ node }) => node);
  const checks = hosts.flatMap((host) => host.checks);
  const codes = [...new Set(checks.filter(({ passed }) => !passed).map(({ code }) => code))];
  const passed = [...new Set(checks.map(({ code }) => code))].filter((code) => !codes.includes(code));
  // Only where all of them were in the draw: preferences come before weights.
  const drawnFrom = Number(/by weight \d+ of (\d+)/.exec(decision.reason)?.[1]);
  const total = hosts.filter(({ verdict }) => verdict === "FEASIBLE").reduce((sum, { weight }) => sum + weight, 0);
  return html`<${Panel} title=${decision.host ? "Why here" : "Why not yet"} aside=${html`<span class="actions">
      ${decisions.length > 1 && html`<select aria-label="Decision" onChange=${({ target }) => setChosen(Number(target.value))}>${decisions.map((one, i) =>
        html`<option value=${i}>${clockTime(one.decidedAt)}, attempt ${one.attempt}: ${one.host?.name ?? "refused"}</option>`)}</select>`}
      <span class="soft">decided again from the record:</span> <${State} of=${decision.replay} /></span>`}>
    <p>${decision.reason}</p>
    ${hosts.length > 0 && html`<div class="scroll" tabindex="0"><table>
      <thead><tr><th>Host</th><th>Verdict</th><th class="number">Weight</th><th class="number">Chance</th>${codes.map((code) => html`<th key=${code}>${words(code)}</th>`)}</tr></thead>
      <tbody>${hosts.map((host) => html`<tr key=${host.hostName} class=${host.chosen ? "chosen" : ""}>
        <td><${HostLink} name=${host.hostName} />${host.chosen && html` <strong>chosen</strong>`}</td>
        <td><${State} of=${host.verdict} /></td>
        <td class="number">${host.weight}</td>
        <td class="number">${host.verdict === "FEASIBLE" && drawnFrom === total ? `${Math.round((100 * host.weight) / total)} %` : "–"}</td>
        ${codes.map((code) => {
          const check = host.checks.find((one) => one.code === code);
          return check === undefined ? html`<td key=${code}></td>` : html`<td key=${code} class=${check.passed ? "" : "fail"} title=${check.message}>${check.passed ? "✓" : "✕"} ${check.passed ? "" : html`needs ${check.needed}, has ${check.available}`}</td>`;
        })}</tr>`)}</tbody></table></div>
      ${passed.length > 0 && html`<p class="soft">Passed by every host: ${passed.map(words).join(", ")}.</p>`}
      ${decision.hosts.pageInfo.hasNextPage && html`<p class="soft">Only the first ${hosts.length} hosts are shown.</p>`}`}
  </${Panel}>`;
}

function JobEvents({ id }) {
  const result = useQuery(JobEventsDocument, { id }, (event) => event.job?.id === id);
  return html`<${Panel} title="Events"><${Loaded} of=${result}>${({ routingEvents }) => html`<${Events} list=${routingEvents.edges.map(({ node }) => node)} />`}</${Loaded}></${Panel}>`;
}

const SPEC = ["image", "name", "entryPoint", "command", "workingDir", "user", "network", "readOnlyRoot", "memoryLimitMb", "cpuLimit", "timeoutSeconds",
  "priority", "preferredExecutor", "executorRequired", "regionPreference", "regionRequired", "hostSelector", "strategy", "labels", "maxAttempts"];
const isEmpty = (value) => value === null || value === "" || value === false || (typeof value === "object" && Object.keys(value).length === 0);
const spec = (job) => Object.fromEntries(SPEC.filter((name) => !isEmpty(job[name])).map((name) => [name, job[name]]));

/** @param {JobParts} job */
const command = (job) => {
  const body = JSON.stringify(spec(job)).replaceAll("'", String.raw`'\''`);
  return `printf %s '${body}' | container-manager submit --server ${location.origin}${ROOT} --file -`;
};
