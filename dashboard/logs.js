// The output of a job: all of it in the page, so that the browser's own search finds every line.
import { follow, request } from "./api.js";
import { LiveLogsDocument, StoredLogsDocument } from "./operations.js";
import { Action, Empty, Panel, count, download } from "./ui.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";

const BLOCK = 100;
const FLUSH_MS = 100;

/** @typedef {import("./operations.js").LiveLogsSubscription["jobLogs"]} Line */

/**
 * The lines of a job, live until it has ended.
 * @param {string} id
 * @param {number} attempt
 * @param {boolean} ended
 * @returns {[Line[], string]}
 */
function useLines(id, attempt, ended) {
  const [lines, setLines] = useState(/** @type {Line[]} */ ([]));
  const [state, setState] = useState("reading");
  useEffect(() => {
    let waiting = [];
    let timer;
    let last;
    const flush = () => {
      timer = undefined;
      const news = waiting;
      waiting = [];
      setLines((before) => [...before, ...news]);
    };
    const add = (news) => {
      if (news.length === 0) return;
      last = news.at(-1).cursor;
      waiting.push(...news);
      timer ??= setTimeout(flush, FLUSH_MS);
    };
    const abort = new AbortController();
    let stop = () => {};
    setLines([]);
    setState("reading");
    if (ended) {
      (async () => {
        for (let more = true; more && !abort.signal.aborted; ) {
          const { job } = await request(StoredLogsDocument, { id, after: last }, { signal: abort.signal });
          add(job.logs.edges.map(({ node }) => node));
          more = job.logs.pageInfo.hasNextPage;
        }
        setState("complete");
      })().catch((error) => !abort.signal.aborted && setState(error.message));
    } else {
      setState("live");
      stop = follow(
        LiveLogsDocument,
        () => ({ id, after: last }),
        ({ jobLogs }) => {
          setState("live");
          add([jobLogs]);
        },
        (error) => {
          setState(error ? "interrupted" : "complete");
          return Boolean(error);
        },
      );
    }
    return () => {
      abort.abort();
      clearTimeout(timer);
      stop();
    };
  }, [id, attempt, ended]);
  return [lines, state];
}

// Escape sequences of terminals, such as colours: what they say is in the text.
const ESCAPES = /\u001b(\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(\u0007|\u001b\\)|[@-Z\\-_])/g;

export function Logs({ job, ended }) {
  const [lines, state] = useLines(job.id, job.attempt, ended);
  const [search, setSearch] = useState("");
  const [at, setAt] = useState(0);
  const [times, setTimes] = useState(false);
  const [following, setFollowing] = useState(true);
  const box = useRef(null);
  const texts = useMemo(() => lines.map(({ text }) => text.replace(ESCAPES, "")), [lines]);
  const hits = useMemo(() => {
    const wanted = search.toLowerCase();
    return wanted ? texts.flatMap((text, i) => (text.toLowerCase().includes(wanted) ? [i] : [])) : [];
  }, [texts, search]);
  const blocks = useMemo(() => Array.from({ length: Math.ceil(lines.length / BLOCK) }, (_, i) => [i * BLOCK, Math.min((i + 1) * BLOCK, lines.length)]), [lines.length]);
  const current = hits[Math.min(at, hits.length - 1)];
  useEffect(() => {
    if (following && state === "live" && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, following]);
  useEffect(() => {
    if (current !== undefined) box.current?.querySelector(`[data-line="${current}"]`)?.scrollIntoView({ block: "nearest" });
  }, [current]);
  const jump = (top) => box.current?.scrollTo({ top: top ? 0 : box.current.scrollHeight });
  const all = () => lines.map(({ stream, at: when }, i) => `${times ? `${when} ` : ""}${stream === "STDERR" ? "! " : ""}${texts[i]}`).join("\n");
  return html`<${Panel} title="Output" aside=${html`<span class="soft" role="status">${count(lines.length, "line")}, ${state}</span>`}>
    <div class="filters">
      <input type="search" aria-label="Search all lines" placeholder="Search all lines" value=${search} onInput=${({ target }) => {
        setSearch(target.value);
        setAt(0);
      }} onKeyDown=${(event) => event.key === "Enter" && setAt((i) => (hits.length ? (i + (event.shiftKey ? hits.length - 1 : 1)) % hits.length : 0))} />
      ${search && html`<span class="soft">${hits.length ? `${Math.min(at, hits.length - 1) + 1} of ${hits.length}` : "no line"}</span>`}
      <button onClick=${() => jump(true)}>Top</button><button onClick=${() => jump(false)}>End</button>
      ${!ended && html`<label class="check"><input type="checkbox" checked=${following} onChange=${({ target }) => setFollowing(target.checked)} />Follow</label>`}
      <label class="check"><input type="checkbox" checked=${times} onChange=${({ target }) => setTimes(target.checked)} />Times</label>
      <${Action} disabled=${lines.length === 0} run=${async () => download(`${job.name || "job"}-${job.attempt}.log`, all())}>Download</${Action}>
    </div>
    ${lines.length === 0
      ? html`<${Empty}>${ended ? "It has written nothing." : "It has written nothing yet. Lines appear here as they are written."}</${Empty}>`
      : html`<div class="log" ref=${box} tabindex="0" aria-label="Output of the job" onWheel=${({ deltaY }) => deltaY < 0 && setFollowing(false)}>
        ${blocks.map(([from, to]) => html`<${Block} key=${from} lines=${lines} texts=${texts} from=${from} to=${to} times=${times} current=${current >= from && current < to ? current : -1} />`)}
      </div>
      <p class="soft">! marks what was written to the standard error.</p>`}
  </${Panel}>`;
}

const Block = ({ lines, texts, from, to, times, current }) => html`<div class="block">${lines.slice(from, to).map(({ stream, at }, i) => html`
  <div key=${from + i} data-line=${from + i} class="row ${stream === "STDERR" ? "stderr" : ""} ${current === from + i ? "hit" : ""}">
    <span class="mark">${times ? at.slice(11, 23) : ""}${stream === "STDERR" ? "!" : " "}</span><span>${texts[from + i]}</span></div>`)}</div>`;
