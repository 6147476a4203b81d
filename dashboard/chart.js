// Lines over time. What they show is also in words, for those who do not see them.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useRef } from "./vendor/preact.js";

const DAY = 86_400;
const STEPS = [60, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, DAY, 7 * DAY, 14 * DAY];
const hourOf = (time) => new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayOf = (time) => new Date(time * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" });

/**
 * @param {{ points: { start: string }[], summary: string,
 *   series: { label: string, tone: string, dash?: number[], of: (point: any) => number | null }[] }} props
 */
export function Chart({ points, series, summary }) {
  const element = useRef(null);
  const chart = useRef(null);
  /** @type {uPlot.AlignedData} */
  const data = [
    points.map(({ start }) => new Date(start).getTime() / 1000),
    ...series.map(({ of }) => points.map(of)),
  ];
  useEffect(() => {
    const box = element.current;
    const draw = () => {
      const style = getComputedStyle(document.documentElement);
      const axis = { stroke: style.getPropertyValue("--soft"), grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { show: false } };
      chart.current?.destroy();
      chart.current = new uPlot(
        {
          width: Math.max(box.clientWidth, 200),
          height: 160,
          legend: { live: false },
          cursor: { drag: { x: false, y: false } },
          scales: { y: { range: (_, least, most) => [0, Math.max(most, 5)] } },
          axes: [{ ...axis, size: 30, incrs: STEPS, values: (_, times) => times.map(times.at(-1) - times[0] > DAY ? dayOf : hourOf) }, { ...axis, size: 40 }],
          series: [{}, ...series.map(({ label, tone, dash }) => ({ label, dash, width: 2, stroke: style.getPropertyValue(tone), points: { show: false } }))],
        },
        latest.current,
        box,
      );
    };
    draw();
    const resized = new ResizeObserver(() => chart.current.setSize({ width: Math.max(box.clientWidth, 200), height: 160 }));
    resized.observe(box);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", draw);
    addEventListener("themechange", draw);
    return () => {
      resized.disconnect();
      theme.removeEventListener("change", draw);
      removeEventListener("themechange", draw);
      chart.current.destroy();
    };
  }, []);
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => chart.current?.setData(data));
  return html`<div class="chart" ref=${element} role="img" aria-label=${summary}></div>`;
}
