/** What the runs of all cells say: ours against the best rival of each cell, as JSON and as a summary to read. */
import { mean } from "simple-statistics"
import { z } from "zod"
import { UserError } from "../../src/errors.ts"
import type { Share } from "../../src/load/statistics.ts"
import type { Cell, Contender } from "./grid.ts"

/** One contender in one cell: requests that kept every SLO, of each seed. */
export interface Entry {
  name: string
  label: string
  attained: number[]
}

export interface CellResult {
  scenario: string
  load: number
  tpotFactor: number
  tpotMs: number
  ttft: string
  /** Counted requests of each seed: the same for all contenders. */
  total: number[]
  ours: Entry
  rivals: Entry[]
}

export interface Findings {
  command: string
  requests: number
  seeds: number[]
  cells: CellResult[]
}

/** Points of attainment, 0 to 100. */
const points = (attained: readonly number[], total: readonly number[]) => (100 * sum(attained)) / sum(total)
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

export function resultOf(
  cell: Cell,
  contenders: readonly Contender[],
  shares: readonly (readonly Share[])[],
): CellResult {
  const entries = contenders.map(({ name, label }, i) => ({
    name,
    label,
    attained: shares[i]!.map(({ attained }) => attained),
  }))
  const { scenario, load, tpotFactor, tpotMs, ttft } = cell
  const total = shares[0]!.map((share) => share.total)
  return {
    ...{ scenario, load, tpotFactor, tpotMs, ttft: ttft.label, total },
    ours: entries[0]!,
    rivals: entries.slice(1),
  }
}

/** A cell, judged. */
export interface Verdict extends CellResult {
  oursPoints: number
  best: Entry
  bestPoints: number
  /** Ours minus the best rival's, all seeds pooled, and of each seed. */
  difference: number
  bySeed: number[]
}

export function verdictOf(cell: CellResult): Verdict {
  const { ours, rivals, total } = cell
  const best = bestOf(rivals, total)
  const oursPoints = points(ours.attained, total)
  const bestPoints = points(best.attained, total)
  return {
    ...cell,
    ...{ oursPoints, best, bestPoints },
    difference: oursPoints - bestPoints,
    bySeed: total.map((n, i) => (100 * (ours.attained[i]! - best.attained[i]!)) / n),
  }
}

function bestOf(entries: readonly Entry[], total: readonly number[]): Entry {
  return entries.reduce((a, b) => (points(b.attained, total) > points(a.attained, total) ? b : a))
}

/** More points behind than this is a cell to look into. */
const BEHIND_POINTS = 2
const WORST = 20

export function summary({ command, requests, seeds, cells }: Findings): string {
  const all = cells.map(verdictOf)
  const sections = [
    "# Ours against the best simple rival, over all SLOs",
    `${cells.length} cells, ${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"} of ${requests} requests each on virtual ` +
      "time. In each cell every rival has the best of its settings for that cell, chosen by the runs that are shown: what " +
      "chance adds to the best of several falls to the rivals. Differences are points of attainment, ours minus the best " +
      "rival's; 0 where all keep everything or nothing. TPOTs are multiples of the shortest possible step, TTFTs with × of " +
      "a prompt's zero-load prefill time, loads of the rate that ours holds at the scenario's usual SLOs.",
    `Command: \`${command}\``,
    "## By scenario and load",
    table(HEADS, [...groups(all).map(([name, own]) => lineOf(name, own)), lineOf("all", all)]),
    "## Against each rival alone, with its best setting in each cell",
    table(
      HEADS,
      [...new Set(all.flatMap(({ rivals }) => rivals.map(({ name }) => name)))].map((name) =>
        lineOf(
          name,
          cells.map((cell) => verdictOf(against(cell, name))),
        ),
      ),
    ),
    `## The ${Math.min(WORST, all.length)} worst cells`,
    worstTable(all),
  ]
  return `${sections.join("\n\n")}\n`
}

/** The cell with one rival only. */
function against(cell: CellResult, name: string): CellResult {
  return { ...cell, rivals: cell.rivals.filter((rival) => rival.name === name) }
}

const HEADS = [
  "",
  "cells",
  "mean difference",
  "worst",
  "best",
  "ours at least as good",
  "more than 2 points behind",
]

function groups(all: readonly Verdict[]): [string, Verdict[]][] {
  return [...Map.groupBy(all, ({ scenario, load }) => `${scenario}, load ${load}`)]
}

function lineOf(name: string, own: readonly Verdict[]): (string | number)[] {
  const differences = own.map(({ difference }) => difference)
  const atLeast = differences.filter((difference) => difference >= 0).length
  const behind = differences.filter((difference) => difference < -BEHIND_POINTS).length
  return [
    name,
    own.length,
    signed(mean(differences)),
    signed(Math.min(...differences)),
    signed(Math.max(...differences)),
    `${((100 * atLeast) / own.length).toFixed(0)}%`,
    behind,
  ]
}

function worstTable(all: readonly Verdict[]): string {
  const worst = [...all].sort((a, b) => a.difference - b.difference).slice(0, WORST)
  return table(
    ["scenario", "load", "TPOT", "TTFT", "ours", "best rival", "its setting", "difference", "by seed"],
    worst.map((cell) => [
      cell.scenario,
      cell.load,
      `${cell.tpotFactor}× (${cell.tpotMs.toFixed(1)} ms)`,
      cell.ttft,
      `${cell.oursPoints.toFixed(1)}%`,
      `${cell.bestPoints.toFixed(1)}%`,
      `${cell.best.name} ${cell.best.label}`,
      signed(cell.difference),
      cell.bySeed.map(signed).join(", "),
    ]),
  )
}

const signed = (value: number) => {
  const text = value.toFixed(1)
  return text === "-0.0" ? "0.0" : value > 0 ? `+${text}` : text
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n")
}

/** One cell a line: thousands of lines otherwise. */
export function toJson({ cells, ...rest }: Findings): string {
  const head = JSON.stringify(rest).slice(0, -1)
  return `${head},"cells":[\n${cells.map((cell) => JSON.stringify(cell)).join(",\n")}\n]}\n`
}

const counts = z.array(z.int().min(0))
const entry = z.object({ name: z.string(), label: z.string(), attained: counts })
const findingsSchema = z.object({
  command: z.string(),
  requests: z.int(),
  seeds: z.array(z.int()),
  cells: z.array(
    z.object({
      scenario: z.string(),
      load: z.number(),
      tpotFactor: z.number(),
      tpotMs: z.number(),
      ttft: z.string(),
      total: counts,
      ours: entry,
      rivals: z.array(entry),
    }),
  ),
})

/** `name` is what error messages call the file. */
export function parseFindings(text: string, name: string): Findings {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new UserError(`${name}: not JSON; give the results.json of an earlier run`)
  }
  const result = findingsSchema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  throw new UserError(
    `${name}: ${issue.path.join(".")}: ${issue.message}; give the results.json of an earlier run`,
  )
}

/** The same cell of earlier findings, whose rivals then need not run again. */
export function earlierOf(earlier: Findings, cell: Cell, name: string): CellResult {
  const { scenario, load, tpotFactor, ttft } = cell
  const found = earlier.cells.find(
    (each) =>
      each.scenario === scenario &&
      each.load === load &&
      each.tpotFactor === tpotFactor &&
      each.ttft === ttft.label,
  )
  if (found !== undefined) return found
  throw new UserError(
    `${name}: has no cell ${scenario}, load ${load}, TPOT ${tpotFactor}×, TTFT ${ttft.label}; leave --rivals out, or choose the ` +
      "cells with --scenarios, --loads, --cells and --quick as it was made",
  )
}
