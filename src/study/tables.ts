/** A study as tables: for the terminal and as Markdown. The same figures as the page shows. */
import Table from "cli-table3"
import type { Quantiles } from "../load/statistics.ts"
import { CONTENDERS, DIFFERENCES, PAPER_RATIO } from "./as-paper.ts"
import { type AsPaper, bestOf, type Row, type Spending, type Study } from "./results.ts"
import { percent } from "./show.ts"
import { RIVAL_GROUPS, RIVALS, type Rival, systemOf } from "./systems.ts"

/** A table: the first row is its head. */
export interface Grid {
  title: string
  note?: string
  rows: string[][]
  /** What to know when reading it, said under the table. */
  remarks?: readonly string[]
}

export const rate = (value: number): string => (value === 0 ? "0" : value.toPrecision(3))
const times = (value: number): string => (Number.isFinite(value) ? `${value.toFixed(2)}×` : "–")
/** One arrival window tells no smaller difference from luck. */
const TIE_PERCENT = 4
/** As it is printed, to whole percents. */
const isTie = (ratio: number, seeds: number): boolean =>
  seeds === 1 && Math.abs(Math.round(100 * (ratio - 1))) <= TIE_PERCENT
/** A ratio of two capacities; from one seed it is a tie when it is near 1. */
export function ratioText(ratio: number, seeds: number): string {
  return isTie(ratio, seeds) ? `${times(ratio)} (tie)` : times(ratio)
}
/** 0: there were none. */
const seconds = (ms: number): string => (ms === 0 ? "–" : `${(ms / 1000).toFixed(1)} s`)
const duration = (ms: number): string => (ms < 1000 ? `${ms.toFixed(0)} ms` : seconds(ms))
const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)]

export function geomean(values: readonly number[]): number {
  return values.length === 0
    ? Number.NaN
    : Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length)
}

/** Ours over the best of a group, per scenario; scenarios where either is missing or 0 are left out. */
export function ratios(
  rows: readonly Row[],
  group: Rival,
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
  const missed = (["own", "common"] as const).map((at) => spendingGrid(study, at))
  const details = [ablationGrid, fleetGrid, arrivalGrid, decileGrid].map((grid) => grid(study))
  return [...own, ...missed, ...details, paperGrid(study), settingsGrid(study)].filter(
    ({ rows }) => rows.length > 1,
  )
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
    for (const group of RIVAL_GROUPS) {
      const title = mine === "ours" ? RIVALS[group] : `${RIVALS[group]}, ours tuned as well`
      const found = ratios(rows, group, speculate, mine)
      for (const { scenario, ratio, best } of found)
        lines.push([
          title,
          scenario,
          ratioText(ratio, best.seedAttainment.length),
          [best.system, ...best.setting].join(" "),
        ])
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

function ablationGrid({ ablations, rows }: Study): Grid {
  const scenarios = distinct(ablations.map(({ scenario }) => scenario))
  const capacity = (scenario: string, without: string) =>
    ablations.find((a) => a.scenario === scenario && a.without === without)?.ratePerSec ?? Number.NaN
  const pieces = distinct(ablations.map(({ without }) => without)).filter((name) => name !== "nothing")
  const seeds = Math.min(2, rows[0]?.seedAttainment.length ?? 1)
  const change = (scenario: string, without: string) => {
    const ratio = capacity(scenario, without) / capacity(scenario, "nothing")
    return isTie(ratio, seeds) ? "tie" : percent(ratio - 1, 0)
  }
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
  const systems = distinct(fleetSizes.map(({ system }) => system))
  const perGpu = (system: string, replicas: number) =>
    (fleetSizes.find((f) => f.system === system && f.replicas === replicas)?.ratePerSec ?? 0) / replicas
  const [ours, ...others] = systems
  return {
    title: "Chat under bursts (gamma, burstiness 0.25): requests/s per GPU, by number of GPUs",
    note: "One seed: ratios within 4% are ties.",
    rows: [
      ["system", ...sizes.map(String)],
      ...systems.map((system) => [system, ...sizes.map((replicas) => rate(perGpu(system, replicas)))]),
      ...others.map((system) => [
        `${ours} over ${system}`,
        ...sizes.map((n) => ratioText(perGpu(ours!, n) / perGpu(system, n), 1)),
      ]),
    ],
  }
}

const SPENDING_TITLES = {
  own: "At its own capacity: what missed requests wait, and what is spent on them",
  common:
    "At slos-serve's capacity, the same rate for all: what missed requests wait, and what is spent on them",
}

function spendingGrid({ spendings }: Study, at: Spending["at"]): Grid {
  const pair = (q: Quantiles | null) => (q === null ? ["–", "–"] : [q.p50, q.p99].map(duration))
  return {
    title: SPENDING_TITLES[at],
    note:
      "One seed. First token: from arrival, of all requests that missed, whatever they were served as. Longest pause: between two " +
      "tokens of one answer, of all requests. Tokens: of requests that kept every SLO, per second of arrivals. " +
      "Work: share of all computed tokens that went to requests that missed.",
    rows: [
      [
        ...["scenario", "system", "requests/s", "kept", "missed: first token p50", "p99"],
        ...["longest pause p50", "p99", "prompt tokens/s kept", "output tokens/s kept", "work on missed"],
      ],
      ...spendings
        .filter((spending) => spending.at === at)
        .map((s) => [
          ...[s.scenario, s.system, rate(s.ratePerSec), percent(s.attainment)],
          ...[...pair(s.missedTtftMs), ...pair(s.longestPauseMs)],
          ...[s.goodput.promptTokensPerSec, s.goodput.outputTokensPerSec].map((tokens) => tokens.toFixed(0)),
          percent(s.missedWorkShare),
        ]),
    ],
  }
}

const lineName = ({ contender, speculate }: Pick<AsPaper, "contender" | "speculate">) =>
  `${contender}, ${wayName(speculate)}`

function paperGrid({ asPaper }: Study): Grid {
  const scenarios = distinct(asPaper.map(({ scenario }) => scenario))
  const lines = distinct(asPaper.map(lineName))
  const capacity = (line: string, scenario: string) =>
    asPaper.find((found) => found.scenario === scenario && lineName(found) === line)?.ratePerSec
  const baselines = CONTENDERS.filter(({ baseline }) => baseline).map(({ name, speculate }) =>
    lineName({ contender: name, speculate }),
  )
  const best = (scenario: string) => Math.max(0, ...baselines.map((line) => capacity(line, scenario) ?? 0))
  const over = (line: string) => {
    const found = scenarios.map((scenario) => (capacity(line, scenario) ?? 0) / best(scenario))
    const mean = geomean(found.filter((ratio) => Number.isFinite(ratio)))
    return [`${line}, over the best baseline`, ...found.map(times), times(mean)]
  }
  const cell = (value: number | undefined) => (value === undefined ? "–" : rate(value))
  return {
    title: "As the paper measured: capacity, requests/s",
    note: "Baselines untuned, as published; output lengths known to all; exact step times; the first, every tenth and the last token checked.",
    rows: [
      ["system", ...scenarios, "geometric mean"],
      ...lines.map((line) => [line, ...scenarios.map((scenario) => cell(capacity(line, scenario))), ""]),
      ...lines
        .filter((line) => !baselines.includes(line) && baselines.some((b) => lines.includes(b)))
        .map(over),
      ...(lines.length === 0
        ? []
        : [["the paper, over earlier systems", ...scenarios.map(() => ""), `${PAPER_RATIO}× (average)`]]),
    ],
    remarks: [
      ...DIFFERENCES,
      "Arrivals here: " +
        scenarios
          .map((scenario) => `${scenario} ${asPaper.find((found) => found.scenario === scenario)!.arrivals}`)
          .join(", ") +
        ". Scenarios in which no baseline holds any rate are left out of the mean.",
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
    note: "raw: the trace's own gaps; Azure's code trace comes in bursts of one instant, where first come, first served keeps hardly any.",
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
    .map(({ title, note, remarks = [], rows: [head, ...body] }) => {
      const table = new Table({ head: head!, style: { head: [], border: [], compact: true } })
      table.push(...body)
      return [title, note, table.toString(), ...remarks].filter(Boolean).join("\n")
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
    ...grids(study).flatMap(({ title, note, remarks = [], rows: [head, ...body] }) => [
      "",
      `## ${title}`,
      ...(note ? ["", note] : []),
      "",
      line(head!),
      line(head!.map(() => "---")),
      ...body.map(line),
      ...(remarks.length > 0 ? ["", ...remarks.map((text) => `- ${text}`)] : []),
    ]),
    "",
  ].join("\n")
}
