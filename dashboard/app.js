// The frame around all pages: signing in, navigation, the state of the connection, keys.
import { ApiError, ROOT, connection, followEvents, loadViewer, signIn, signOut, stopFollowing, viewer } from "./api.js";
import { Palette, palette } from "./palette.js";
import { Admin } from "./pages/admin.js";
import { EventsPage } from "./pages/events.js";
import { Fleet, Host } from "./pages/fleet.js";
import { Job } from "./pages/job.js";
import { Compare, Jobs } from "./pages/jobs.js";
import { Login } from "./pages/login.js";
import { Overview } from "./pages/overview.js";
import { Queue } from "./pages/queue.js";
import { WhatIf } from "./pages/what_if.js";
import { go, href, route } from "./router.js";
import { Action, Empty, Head, Messages, Question, duration, words } from "./ui.js";
import { effect, html, render, useEffect, useState } from "./vendor/preact.js";

export const PAGES = [
  ["/", "Overview", "o"], ["/fleet", "Fleet", "f"], ["/jobs", "Jobs", "j"], ["/queue", "Queue", "u"],
  ["/what-if", "What if", "w"], ["/events", "Events", "e"], ["/admin", "Admin", "a"],
];

function Page() {
  const { path } = route.value;
  const [, section, ...parts] = path.split("/");
  const rest = parts.join("/");
  const pages = { "": Overview, queue: Queue, "what-if": WhatIf, events: EventsPage, admin: Admin, compare: Compare };
  if (section === "fleet") return rest ? html`<${Host} key=${rest} name=${rest} />` : html`<${Fleet} />`;
  if (section === "jobs") return rest ? html`<${Job} key=${rest} id=${rest} />` : html`<${Jobs} />`;
  const found = rest === "" && pages[section];
  return found
    ? html`<${found} />`
    : html`<${Head} title="No such page" /><${Empty}>There is nothing at <code>${path}</code>. <a href=${href("/")}>Overview</a></${Empty}>`;
}

function Connection() {
  const { state, since } = connection.value;
  const lost = state === "offline";
  useEffect(() => {
    // While it is lost, the clock of this line alone goes on.
    const timer = lost && setInterval(() => setTick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, [lost]);
  const [, setTick] = useState(0);
  const [icon, tone, text] = {
    live: ["●", "good", "live"],
    connecting: ["◌", "warn", "connecting"],
    offline: ["✕", "bad", `no connection for ${duration(Math.round((Date.now() - since) / 1000))}`],
  }[state];
  return html`<span class="badge ${tone}" role="status"><i aria-hidden="true">${icon}</i>${text}</span>`;
}

const THEMES = ["auto", "light", "dark"];
function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "auto");
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button onClick=${() => {
    localStorage.setItem("theme", next);
    applyTheme();
    setTheme(next);
  }} title="Change to ${next}">Theme: ${theme}</button>`;
}
function applyTheme() {
  const theme = localStorage.getItem("theme") ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  dispatchEvent(new Event("themechange"));
}
applyTheme();

function App() {
  if (viewer.value === undefined) return html`<p class="starting">Connecting…</p>`;
  if (viewer.value === null) return html`<${Login} />`;
  const { path } = route.value;
  return html`<a class="skip" href="#main">To the content</a>
    <div class="frame">
      <header class="side">
        <a class="brand" href=${href("/")}><img src="${ROOT}/assets/icon.svg" alt="" />container-manager</a>
        <nav aria-label="Pages">${PAGES.map(([address, title]) => {
          const here = address === "/" ? path === "/" : path === address || path.startsWith(`${address}/`);
          return html`<a key=${address} href=${href(address)} aria-current=${here ? "page" : undefined}>${title}</a>`;
        })}</nav>
        <div class="foot">
          <${Connection} />
          <button onClick=${() => (palette.value = true)}>Search <kbd>Ctrl K</kbd></button>
          <${Theme} />
          <a href="${ROOT}/graphql" target="_blank" rel="noreferrer">GraphQL editor</a>
          <span class="soft" title=${viewer.value.expiresAt ? `until ${viewer.value.expiresAt}` : ""}>${viewer.value.name}, ${words(viewer.value.role)}</span>
          ${viewer.value.name !== "no-auth" && html`<${Action} run=${signOut}>Sign out</${Action}>`}
        </div>
      </header>
      <main class="page" id="main" tabindex="-1"><${Messages} /><${Page} /></main>
    </div>
    <${Palette} pages=${PAGES} /><${Question} />`;
}

// Keys: g and a letter go to a page, / to the first search field, Ctrl-K opens the palette.
let prefix = 0;
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "k") {
    event.preventDefault();
    palette.value = true;
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || /** @type {Element} */ (event.target).closest("input, select, textarea, dialog") || !viewer.value) return;
  if (event.key === "/") {
    event.preventDefault();
    /** @type {HTMLElement | null} */ (document.querySelector('main input[type="search"]'))?.focus();
  } else if (event.key === "g") {
    prefix = Date.now();
  } else if (Date.now() - prefix < 1500) {
    const page = PAGES.find(([, , key]) => key === event.key);
    prefix = 0;
    if (page) go(href(page[0]));
  }
});

/** A token in the fragment of the address, as `demo` prints it, signs in and is removed from the address. */
async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  while (viewer.value === undefined) {
    try {
      await loadViewer();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  // Not in the place of another session: a link of a stranger would change who acts.
  if (token && viewer.value === null) await signIn(token).catch(() => {});
}

render(html`<${App} />`, document.getElementById("app"));
await start();
let followed;
effect(() => {
  const name = viewer.value?.name;
  if (name === followed) return;
  followed = name;
  if (name) followEvents();
  else stopFollowing();
});
