/** A study as tables: for the terminal and as Markdown. The same figures as the page shows. */
import Table from "cli-table3"
import { percent } from "./show.ts"
import { bestOf, type Row, type Study } from "./study.ts"
import { systemOf } from "./systems.ts"

/** A table: the first row is its head. */
export interface Grid {
  title: string
  note?: string
  rows: string[][]
}

export const rate = (value: number): string => (value === 0 ? "0" : value.toPrecision(3))
const times = (value: number): string => (Number.isFinite(value) ? `${value.toFixed(2)}×` : "–")
/** 0: there were none. */
const seconds = (ms: number): string => (ms === 0 ? "–" : `${(ms / 1000).toFixed(1)} s`)
const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)]

export function geomean(values: readonly number[]): number {
  return values.length === 0
    ? Number.NaN
    : Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length)
}

/** Ours over the best of a group, per scenario; scenarios where either is missing or 0 are left out. */
export function ratios(
  rows: readonly Row[],
  group: "baseline" | "peer",
  speculate: boolean,
  mine: "ours" | "tuned" = "ours",
): { scenario: string; ratio: number; best: Row }[] {
  return distinct(rows.map((row) => row.scenario)).flatMap((scenario) => {
    const ours = bestOf(rows, mine, scenario, speculate)
    const best = bestOf(rows, group, scenario, speculate)
    if (ours === null || best === null || best.ratePerSec === 0) return []
    return [{ scenario, ratio: ours.ratePerSec / best.ratePerSec, best }]
  })
}

/** Every way of decoding in the study. */
export const ways = (study: Study): boolean[] => distinct(study.rows.map((row) => row.speculate))
export const wayName = (speculate: boolean): string => (speculate ? "speculative" : "autoregressive")

/** All tables of a study, in the order of reading. */
export function grids(study: Study): Grid[] {
  const own = ways(study).flatMap((way) => [capacityGrid(study, way), ratioGrid(study, way)])
  const details = [ablationGrid, fleetGrid, arrivalGrid, decileGrid, settingsGrid].map((grid) => grid(study))
  return [...own, ...details].filter(({ rows }) => rows.length > 1)
}

function capacityGrid({ rows }: Study, speculate: boolean): Grid {
  const own = rows.filter((row) => row.speculate === speculate)
  const scenarios = distinct(own.map((row) => row.scenario))
  const cell = (scenario: string, name: string) => {
    const row = own.find((r) => r.scenario === scenario && r.system === name)
    if (row === undefined) return "–"
    const seeds =
      row.perSeed.length > 1 ? ` (${rate(Math.min(...row.perSeed))}–${rate(Math.max(...row.perSeed))})` : ""
    return `${rate(row.ratePerSec)}${seeds}`
  }
  const first = (scenario: string) => own.find((row) => row.scenario === scenario)!
  return {
    title: `Capacity, requests/s, ${wayName(speculate)}`,
    note: "Highest rate at which 90% of the requests keep every SLO, all seeds pooled; in brackets the least and the highest of single seeds.",
    rows: [
      ["policy", ...scenarios],
      ...distinct(own.map((row) => row.system)).map((name) => [name, ...scenarios.map((s) => cell(s, name))]),
      [
        "fluid bound",
        ...scenarios.map((s) => `${rate(first(s).bound.ratePerSec)} (${first(s).bound.limit})`),
      ],
      ["GPUs", ...scenarios.map((s) => String(first(s).spec.replicas * first(s).spec.hardware.gpus))],
    ],
  }
}

function ratioGrid({ rows }: Study, speculate: boolean): Grid {
  const lines: string[][] = [["capacity over", "scenario", "ratio", "best of them"]]
  for (const mine of ["ours", "tuned"] as const) {
    for (const group of ["baseline", "peer"] as const) {
      const them = group === "baseline" ? "the paper's baselines" : "research peers"
      const title = mine === "ours" ? them : `${them}, ours tuned as well`
      const found = ratios(rows, group, speculate, mine)
      for (const { scenario, ratio, best } of found)
        lines.push([title, scenario, times(ratio), [best.system, ...best.setting].join(" ")])
      if (found.length > 1)
        lines.push([title, "geometric mean", times(geomean(found.map(({ ratio }) => ratio))), ""])
    }
  }
  for (const row of rows)
    if (row.system === "slos-serve" && row.speculate === speculate)
      lines.push([
        "fluid bound",
        row.scenario,
        percent(row.ratePerSec / row.bound.ratePerSec, 0),
        row.bound.limit,
      ])
  return { title: `slos-serve against the others, ${wayName(speculate)}`, rows: lines }
}

function ablationGrid({ ablations }: Study): Grid {
  const scenarios = distinct(ablations.map(({ scenario }) => scenario))
  const capacity = (scenario: string, without: string) =>
    ablations.find((a) => a.scenario === scenario && a.without === without)?.ratePerSec ?? Number.NaN
  const pieces = distinct(ablations.map(({ without }) => without)).filter((name) => name !== "nothing")
  const change = (scenario: string, without: string) =>
    percent(capacity(scenario, without) / capacity(scenario, "nothing") - 1, 0)
  return {
    title: "Ablations: change of slos-serve's capacity without",
    rows: [
      ["without", ...scenarios],
      ...pieces.map((without) => [without, ...scenarios.map((scenario) => change(scenario, without))]),
    ],
  }
}

function fleetGrid({ fleetSizes }: Study): Grid {
  const sizes = distinct(fleetSizes.map(({ replicas }) => replicas))
  const capacity = (system: string, replicas: number) =>
    fleetSizes.find((f) => f.system === system && f.replicas === replicas)?.ratePerSec ?? 0
  return {
    title: "Chat under bursts (gamma, burstiness 0.25): requests/s by number of GPUs",
    rows: [
      ["system", ...sizes.map(String)],
      ...distinct(fleetSizes.map((f) => f.system)).map((system) => [
        system,
        ...sizes.map((replicas) => rate(capacity(system, replicas))),
      ]),
    ],
  }
}

function arrivalGrid({ byArrivals }: Study): Grid {
  const processes = distinct(byArrivals.map(({ arrivals }) => arrivals))
  const keyOf = ({ scenario, system }: { scenario: string; system: string }) => `${scenario} ${system}`
  const capacity = (key: string, process: string) =>
    byArrivals.find((b) => keyOf(b) === key && b.arrivals === process)?.ratePerSec ?? 0
  return {
    title: "Arrival processes: requests/s",
    note: "raw: the trace's own gaps; Azure's code trace comes in bursts of one instant, where first come, first served keeps hardly anybody.",
    rows: [
      ["scenario", "system", ...processes],
      ...distinct(byArrivals.map(keyOf)).map((key) => [
        ...key.split(" "),
        ...processes.map((process) => rate(capacity(key, process))),
      ]),
    ],
  }
}

function decileGrid({ curves }: Study): Grid {
  const tenths = Array.from({ length: 10 }, (_, i) => String(i + 1))
  return {
    title: "At its own capacity: attainment by tenth of the requests by size, smallest first",
    rows: [
      ["scenario", "system", ...tenths, "best-effort p50", "p99", "revoked", "busy"],
      ...curves.map((c) => [
        c.scenario,
        c.system,
        ...c.deciles.map((d) => percent(d.attainment, 0)),
        seconds(c.bestEffortP50Ms),
        seconds(c.bestEffortP99Ms),
        String(c.revoked),
        percent(c.utilization, 0),
      ]),
    ],
  }
}

function settingsGrid({ rows }: Study): Grid {
  return {
    title: "Settings kept",
    note: "Ours runs with its defaults. Baselines and peers: each knob tuned on a seed of its own.",
    rows: [
      [
        "scenario",
        "system",
        "decoding",
        "kept",
        "tried",
        "a run at least",
        "runs",
        "kept at capacity by seed",
      ],
      ...rows.map((row) => [
        row.scenario,
        row.system,
        wayName(row.speculate),
        systemOf(row.system)?.group === "ours" ? "defaults" : row.setting.join(" ") || "defaults",
        String(row.tried),
        `${row.size.requests}, ${row.size.spanS} s`,
        String(row.runs),
        row.seedAttainment.map((value) => percent(value)).join(" "),
      ]),
    ],
  }
}

export function describeStudy(study: Study): string {
  return grids(study)
    .map(({ title, note, rows: [head, ...body] }) => {
      const table = new Table({ head: head!, style: { head: [], border: [], compact: true } })
      table.push(...body)
      return [title, note, table.toString()].filter(Boolean).join("\n")
    })
    .join("\n\n")
}

/** What holds for all figures. */
export function conditions(study: Study, command: string): string[] {
  const first = study.rows[0]
  if (first === undefined) return [`command: ${command}`]
  const { noiseSigma, seed, arrivals, knownLengths, acceptance } = first.spec
  const hardware = distinct(study.rows.map((row) => `${row.scenario}: ${row.spec.hardware.source}`))
  return [
    `command: ${command}`,
    `seeds: ${study.rows[0]!.seedAttainment.length} from ${seed}; tuned on another seed`,
    `noise: ${percent(noiseSigma, 0)} on every step; output lengths ${knownLengths ? "known (oracle)" : "unknown to the planner"}`,
    `arrivals: ${arrivals} unless said otherwise; ${percent(acceptance, 0)} of drafted tokens accepted when speculating`,
    ...hardware,
    ...Object.entries(study.sources).flatMap(([scenario, sources]) =>
      Object.entries(sources).map(([app, source]) => `${scenario}, ${app}: ${source}`),
    ),
  ]
}

export function markdown(study: Study, command: string): string {
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`
  return [
    "# Capacity",
    ...conditions(study, command).map((text) => `- ${text}`),
    ...grids(study).flatMap(({ title, note, rows: [head, ...body] }) => [
      "",
      `## ${title}`,
      ...(note ? ["", note] : []),
      "",
      line(head!),
      line(head!.map(() => "---")),
      ...body.map(line),
    ]),
    "",
  ].join("\n")
}
