/** A study as one self-contained HTML page: charts by vega-lite inside, tables below, readable by day and night. */
import {
  ablationChart,
  capacityChart,
  curveChart,
  decileChart,
  fleetChart,
  latencyChart,
  ratioChart,
} from "./charts.ts"
import type { PlannerLatency } from "./planner-latency.ts"
import type { Study } from "./results.ts"
import { RIVAL_GROUPS, RIVALS } from "./systems.ts"
import { conditions, type Grid, geomean, grids, ratios, wayName, ways } from "./tables.ts"

const STYLE = `
:root { color-scheme: light dark; --ground: #fff; --ink: #1f2430; --soft: #6b7280; --line: #8884; --mark: #4c78a81f }
@media (prefers-color-scheme: dark) { :root { --ground: #14161b; --ink: #e6e8ec; --soft: #9aa1ad } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; font-size: 1.15rem }
p, li { max-width: 60rem } ul { padding-left: 1.2rem } .soft { color: var(--soft) }
.wide { overflow-x: auto } svg { max-width: none }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap }
.number { text-align: right } tbody tr:hover { background: var(--mark) }
code { background: var(--mark); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere }
.key { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 } .key div { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem }
.key b { display: block; font-size: 1.5rem }`

const MEANING = `Capacity is the highest rate at which at least 90% of the requests keep every objective, token by token: the first
token by arrival + TTFT, token n by max(that, time of the first token) + (n − 1) · TPOT. A tool session counts once, and only if
every round was in time. Every system has the same number of GPUs, knows the same, and serves what it turned down as best-effort.
The fluid bound is one that no policy can pass under a steady load: it knows everything, has no bursts, and drops the costliest
tenth. It is one of means: a short run may lie above it.`

interface Section {
  title: string
  text: string
  svg: string | null
}

export async function page(
  study: Study,
  command: string,
  latencies: readonly PlannerLatency[] = [],
): Promise<string> {
  const sections = await sectionsOf(study, latencies)
  const shown = sections.filter(({ svg }) => svg !== null)
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>SLOs-Serve: what rate a fleet holds</title><style>${STYLE}</style></head><body>
<h1>What rate a fleet holds within its SLOs</h1>
<p>${MEANING}</p>
<div class="key">${keys(study)}</div>
${shown.map((section, i) => `<h2>${escaped(section.title)}</h2>\n<p class="soft">${escaped(section.text)}</p>\n<div class="wide">${own(section.svg!, i)}</div>`).join("\n")}
<h2>Tables</h2>
${grids(study).map(tableOf).join("\n")}
<h2>Conditions</h2>
<ul>${conditions(study, command)
    .map((text) => `<li>${code(text)}</li>`)
    .join("")}</ul>
</body></html>
`
}

async function sectionsOf(study: Study, latencies: readonly PlannerLatency[]): Promise<Section[]> {
  return [
    {
      title: "Capacity",
      text: "Requests per second of the whole fleet, all seeds pooled; the line is the fluid bound.",
      svg: await capacityChart(study),
    },
    {
      title: "slos-serve against the best of the others",
      text: "Ratio of capacities to the best of each group, each rival with the knobs that suit it best in that scenario, and share of the fluid bound.",
      svg: await ratioChart(study),
    },
    {
      title: "Attainment against rate",
      text: "Ours and the best of each group of rivals, one seed; the line is 90%.",
      svg: await curveChart(study),
    },
    {
      title: "What is turned down",
      text: "Attainment at each one's own capacity, by tenth of the requests in order of size.",
      svg: await decileChart(study),
    },
    {
      title: "Each piece of the planner taken away",
      text: "Change of our capacity, two seeds where there are several.",
      svg: await ablationChart(study),
    },
    {
      title: "More GPUs, bursty chat",
      text: "Capacity per GPU by number of GPUs under gamma arrivals of burstiness 0.25, one seed: differences within 4% are ties.",
      svg: await fleetChart(study),
    },
    {
      title: "Time of one decision",
      text: "The median and, dashed, the 99th percentile, on the machine that made this page, one thread; not repeatable by seed.",
      svg: await latencyChart(latencies),
    },
  ]
}

function keys(study: Study): string {
  return ways(study)
    .flatMap((way) =>
      RIVAL_GROUPS.flatMap((group) => {
        const found = ratios(study.rows, group, way).map(({ ratio }) => ratio)
        if (found.length === 0) return []
        return [
          `<div><b>${geomean(found).toFixed(2)}×</b>${RIVALS[group]}, ${wayName(way)}<br><span class="soft">geometric mean of ${found.length}, least ${Math.min(...found).toFixed(2)}×</span></div>`,
        ]
      }),
    )
    .join("")
}

function tableOf({ title, note, remarks = [], rows: [head, ...body] }: Grid): string {
  const isNumber = (column: number) => body.some((row) => /^[-−]?\d/.test(row[column]!))
  const cells = (row: string[], tag: string) =>
    row.map((cell, i) => `<${tag}${isNumber(i) ? ` class="number"` : ""}>${escaped(cell)}</${tag}>`).join("")
  return `<h3>${escaped(title)}</h3>${note ? `<p class="soft">${escaped(note)}</p>` : ""}<div class="wide"><table><thead><tr>${cells(head!, "th")}</tr></thead>
<tbody>${body.map((row) => `<tr>${cells(row, "td")}</tr>`).join("\n")}</tbody></table></div>${remarks.length > 0 ? `<ul class="soft">${remarks.map((text) => `<li>${escaped(text)}</li>`).join("")}</ul>` : ""}`
}

/** Charts of one page share a namespace: their clip paths must not. */
function own(svg: string, index: number): string {
  return svg.replace(/\b(clip|gradient)_?(\d+)\b/g, `$1-${index}-$2`)
}

function code(text: string): string {
  const [name, ...rest] = text.split(": ")
  return name === "command" ? `command: <code>${escaped(rest.join(": "))}</code>` : escaped(text)
}

function escaped(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;")
}
