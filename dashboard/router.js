// Addresses of pages. Filters are in the address, so that every view can be linked to.
import { ROOT } from "./api.js";
import { signal } from "./vendor/preact.js";

const decoded = (path) => {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
};
const here = () => ({
  path: decoded(location.pathname.slice(ROOT.length)) || "/",
  query: Object.fromEntries(new URLSearchParams(location.search)),
});
export const route = signal(here());
addEventListener("popstate", () => (route.value = here()));

export const href = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const search = new URLSearchParams(given).toString();
  return `${ROOT}${path}${search ? `?${search}` : ""}`;
};

export function go(address, { replace = false } = {}) {
  if (address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  route.value = here();
  if (!replace) scrollTo(0, 0);
}

/** Sets some of the filters in the address and keeps the others. */
export const setQuery = (changes) =>
  go(href(route.value.path, { ...route.value.query, ...changes }), { replace: true });

// Links to pages of the dashboard do not load it again.
addEventListener("click", (event) => {
  const link = /** @type {HTMLAnchorElement | undefined} */ (/** @type {Element} */ (event.target).closest?.("a[href]"));
  if (!link || link.target || link.getAttribute("href").startsWith("#") || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
