import { useQuery } from "../api.js";
import { QueueDocument } from "../operations.js";
import { href } from "../router.js";
import { Ago, Empty, Head, JobLink, Labels, Loaded, Panel, State, count, number } from "../ui.js";
import { html } from "../vendor/preact.js";
import { reasons } from "./overview.js";

const concerns = ({ kind }) => ["JOB_SUBMITTED", "JOB_ROUTED", "JOB_REFUSED", "JOB_CANCELLED", "JOB_RETRIED"].includes(kind) || kind.startsWith("HOST_");

export function Queue() {
  const result = useQuery(QueueDocument, {}, concerns);
  return html`<${Head} title="Queue" />
    <${Loaded} of=${result}>${({ queue, jobs }) => {
      const never = queue.groups.filter(({ verdict }) => verdict === "NEVER");
      const waiting = jobs.edges.map(({ node }) => node);
      if (queue.pending === 0) return html`<${Empty}>No job waits. ${count(queue.active, "job")} ${queue.active === 1 ? "has" : "have"} a host.</${Empty}>`;
      return html`
        <p>${count(queue.pending, "job")} wait${queue.pending === 1 ? "s" : ""}, the longest since <${Ago} at=${queue.oldestSubmittedAt} />. ${count(queue.active, "job")} ${queue.active === 1 ? "has" : "have"} a host.</p>
        ${never.length > 0 && html`<div class="notice bad">${count(never.reduce((sum, { jobs: n }) => sum + n, 0), "job")} can never run on this fleet, even if it were empty and healthy: the jobs or the fleet must change.</div>`}
        <${Panel} title="By what they wait for"><div class="scroll" tabindex="0"><table>
          <thead><tr><th class="number">Jobs</th><th>Verdict</th><th>What hosts fail</th><th>Oldest</th><th><span class="sr">More</span></th></tr></thead>
          <tbody>${queue.groups.map((group) => html`<tr>
            <td class="number">${number(group.jobs)}</td><td><${State} of=${group.verdict} /></td><td>${reasons(group.rejections)}</td>
            <td><${Ago} at=${group.oldestSubmittedAt} /></td>
            <td>${group.rejections.length > 0 && html`<a href=${href("/jobs", { waiting: most(group.rejections), order: "QUEUE" })}>Jobs</a>`}</td></tr>`)}</tbody></table></div></${Panel}>
        <${Panel} title="In the order of the queue" aside=${html`<span class="soft">by priority, then by age</span>`}><div class="scroll" tabindex="0"><table>
          <thead><tr><th class="number">Place</th><th>Job</th><th class="number">Priority</th><th>Waits since</th><th>Labels</th><th>Why</th></tr></thead>
          <tbody>${waiting.map((job, i) => html`<tr key=${job.id}><td class="number">${i + 1}</td><td><${JobLink} job=${job} /></td><td class="number">${job.priority}</td>
            <td><${Ago} at=${job.submittedAt} /></td><td><${Labels} of=${job.labelList} /></td>
            <td>${job.waitingOn ? html`<${State} of=${job.waitingOn.verdict} /> ${job.waitingOn.message}` : "Its turn has not come."}</td></tr>`)}</tbody></table></div>
          ${jobs.pageInfo.hasNextPage && html`<p class="soft">The first ${waiting.length} are shown. <a href=${href("/jobs", { status: "PENDING", order: "QUEUE" })}>All</a></p>`}</${Panel}>`;
    }}</${Loaded}>`;
}

const most = (rejections) => [...rejections].sort((a, b) => b.hosts - a.hosts)[0].code;
