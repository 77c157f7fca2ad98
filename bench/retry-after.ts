/** When refused requests are told to come back, by the server's rule and by simpler ones: bursts against the production driver on
 * virtual time; what is refused comes back when it was told to. Are they taken then, how often do they come, how long does it keep
 * them, and how does the time compare with the first at which one like it would have been taken? Prints a table; with --out also
 * writes it there (.md), and its figures (.json). */
import { writeFileSync } from "node:fs"
import { Command } from "commander"
import { quantile } from "simple-statistics"
import { wholeNumber } from "../src/cli/numbers.ts"
import { KINDS, PROBE_US, play, type Refusal, type Scenario, type Seen } from "./retry-after/play.ts"
import { RULES } from "./retry-after/rules.ts"

const QUEUE = { maxQueue: 256 }
const CALM = { calmPerSec: 3, calmS: 60, ...QUEUE }
const BURSTS: readonly Omit<Scenario, "returns">[] = [
  {
    name: "300 at once, after a quiet minute",
    ...CALM,
    calmPerSec: 0.1,
    atOnce: 300,
    burstPerSec: 0,
    burstS: 0,
  },
  { name: "300 at once", ...CALM, atOnce: 300, burstPerSec: 0, burstS: 0 },
  { name: "600 at once", ...CALM, atOnce: 600, burstPerSec: 0, burstS: 0 },
  { name: "10 times for 15 s", ...CALM, atOnce: 0, burstPerSec: 30, burstS: 15 },
  { name: "10 times for 20 s", ...CALM, atOnce: 0, burstPerSec: 30, burstS: 20 },
  { name: "10 times for 60 s", ...CALM, atOnce: 0, burstPerSec: 30, burstS: 60 },
]
const RETURNS = [1, 0.5, 0] as const

interface Row {
  burst: string
  returns: number
  rule: string
  requests: number
  refused: number
  told: Spread
  /** Told over needed: the first moment, and the first from which on there was room for a second. */
  ratio: Spread
  ratioLasting: Spread
  tooEarly: number
  takenFirst: number | null
  takenAll: number | null
  /** Of those with an SLO that were taken when they came back, and of all that came. */
  keptOfTaken: number | null
  tries: number | null
  delayS: Spread | null
  servedShare: number
  overS: number
  kept: number
}
type Spread = { p10: number; p50: number; p90: number }

async function main(): Promise<void> {
  const { seeds, out, only } = new Command("bench/retry-after.ts")
    .option("--seeds <n>", "so many", wholeNumber(1, 1000), 3)
    .option("--only <text>", "bursts and rules whose names have it")
    .option("--out <path>", "without an ending")
    .parse()
    .opts<{ seeds: number; out?: string; only?: string }>()
  const rows: Row[] = []
  console.log(HEADER)
  for (const burst of BURSTS)
    for (const returns of RETURNS) {
      for (const make of RULES) {
        const { name } = make()
        if (only !== undefined && !`${burst.name} ${name} ${returns}`.includes(only)) continue
        const seen: Seen[] = []
        for (let seed = 1; seed <= seeds; seed++) seen.push(await play({ ...burst, returns }, make(), seed))
        const row = rowOf(burst.name, returns, name, seen)
        rows.push(row)
        console.log(line(row))
      }
    }
  if (out === undefined) return
  writeFileSync(`${out}.json`, `${JSON.stringify(rows, null, 1)}\n`)
  writeFileSync(`${out}.md`, `${[HEADER, ...rows.map(line)].join("\n")}\n`)
}

function rowOf(burst: string, returns: number, rule: string, seen: readonly Seen[]): Row {
  const refusals = seen.flatMap((one) =>
    one.refusals.map((refusal) => ({ ...refusal, ...needed(refusal, one) })),
  )
  const sum = (of: (one: Seen) => number) => seen.reduce((total, one) => total + of(one), 0)
  const toldS = refusals.map(({ atUs, toldUs }) => (toldUs - atUs) / 1e6)
  const first = refusals.filter(({ tries, taken }) => tries === 0 && taken !== null)
  const again = refusals.filter(({ taken }) => taken !== null)
  const known = refusals.filter(({ firstS }) => firstS !== null)
  const lasting = refusals.filter(({ lastingS }) => lastingS !== null)
  const share = (of: readonly { taken: boolean | null }[]) =>
    of.length === 0 ? null : of.filter(({ taken }) => taken).length / of.length
  const delays = seen.flatMap(({ delaysS }) => delaysS)
  const timed = again.filter(({ taken, kind }) => taken && KINDS[kind]!.tier === "slo")
  return {
    ...{ burst, returns, rule, requests: sum((one) => one.requests), refused: refusals.length },
    told: spread(toldS),
    ratio: spread(known.map(({ atUs, toldUs, firstS }) => (toldUs - atUs) / 1e6 / firstS!)),
    ratioLasting: spread(lasting.map(({ atUs, toldUs, lastingS }) => (toldUs - atUs) / 1e6 / lastingS!)),
    tooEarly:
      lasting.filter(({ atUs, toldUs, lastingS }) => (toldUs - atUs) / 1e6 < lastingS!).length /
      Math.max(1, lasting.length),
    takenFirst: share(first),
    takenAll: share(again),
    keptOfTaken: timed.length === 0 ? null : timed.filter(({ kept }) => kept).length / timed.length,
    tries: delays.length === 0 ? null : again.length / Math.max(1, first.length),
    delayS: delays.length === 0 ? null : spread(delays),
    servedShare: sum((one) => one.served) / sum((one) => one.requests),
    overS: Math.max(...seen.map(({ overS }) => overS)),
    kept: sum((one) => one.kept) / sum((one) => one.timed),
  }
}

const LASTING = 1_000_000 / PROBE_US

/** After how long one like it would have been taken, s, at the earliest and from when on for a second at least. Not before what
 * can be told: half a second. */
function needed({ atUs, kind }: Refusal, { room }: Seen): { firstS: number | null; lastingS: number | null } {
  const seen = room[kind]!
  const from = Math.ceil(atUs / PROBE_US)
  let [first, lasting, run] = [-1, -1, 0]
  for (let i = from; i < seen.length && lasting < 0; i++) {
    run = seen[i]!.taken ? run + 1 : 0
    if (run > 0 && first < 0) first = i
    if (run >= LASTING) lasting = i - LASTING + 1
  }
  const after = (at: number) => (at < 0 ? null : Math.max(PROBE_US, at * PROBE_US - atUs) / 1e6)
  return { firstS: after(first), lastingS: after(lasting) }
}

function spread(values: readonly number[]): Spread {
  if (values.length === 0) return { p10: Number.NaN, p50: Number.NaN, p90: Number.NaN }
  const at = (share: number) => Math.round(quantile([...values], share) * 100) / 100
  return { p10: at(0.1), p50: at(0.5), p90: at(0.9) }
}

const COLUMNS = [
  ...["burst", "share that comes back", "told", "refusals / requests", "told, s: p50 (p10–p90)"],
  ...[
    "told / first moment with room",
    "told / first with room for a second",
    "told before that",
    "taken at the first return",
  ],
  ...[
    "of these with an SLO: kept",
    "comings each",
    "refused until taken, s",
    "served",
    "last one taken, s after the burst",
  ],
  "all SLOs kept",
]
const HEADER = `| ${COLUMNS.join(" | ")} |\n|${" --- |".repeat(COLUMNS.length)}`

function line(row: Row): string {
  const spreadOf = (of: Spread | null) => (of === null ? "–" : `${of.p50} (${of.p10}–${of.p90})`)
  const percent = (share: number | null) => (share === null ? "–" : `${Math.round(share * 100)}%`)
  const cells = [
    row.burst,
    `${row.returns}`,
    row.rule,
    `${row.refused}/${row.requests}`,
    spreadOf(row.told),
    spreadOf(row.ratio),
    spreadOf(row.ratioLasting),
    percent(row.tooEarly),
    percent(row.takenFirst),
    percent(row.keptOfTaken),
    row.tries === null ? "–" : row.tries.toFixed(1),
    spreadOf(row.delayS),
    percent(row.servedShare),
    row.overS.toFixed(0),
    percent(row.kept),
  ]
  return `| ${cells.join(" | ")} |`
}

await main()
