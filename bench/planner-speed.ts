/** How long one decision takes: a replica kept at so many running decodes, with so many new prompts at every step
 * boundary and so many waiting; times `handle` of what the step brought and of the arrivals, and `poll`: bookkeeping,
 * admission and batch. Every round makes the same decisions from the same seed. Quantiles are of a round, and of those
 * the median over the rounds; the least time of a decision over the rounds is what it takes by itself, the rest is the
 * machine. */
import { writeFileSync } from "node:fs"
import { Command, InvalidArgumentError, Option } from "commander"
import { median, quantileSorted } from "simple-statistics"
import { listOf, numberIn, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyOptions } from "../src/core/options.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import { type Decision, Load, type Size } from "./planner-speed/load.ts"

type Speculation = "off" | "on"

interface Case extends Size {
  name: string
  speculation: readonly Speculation[]
  /** What the 99th percentile should stay below. */
  aimMs?: number
}

interface Row {
  case: string
  policy: string
  speculation: Speculation
  admission: string
  prefixTokens: number
  tenants: number
  decisions: number
  meanItems: number
  p50Ms: number
  p99Ms: number
  maxMs: number
  aimMs: number | null
  /** Of each decision's least time over the rounds. */
  leastP99Ms: number
}

const BOTH: readonly Speculation[] = ["off", "on"]
const SHARED_TOKENS = 3072

const plain = { waiting: 0, distinctTpots: false, prefixTokens: 0, tenants: 1 }

/** What is run without --sizes; each also with prompts that share their beginning. */
const CASES: readonly Case[] = [
  { ...plain, name: "256+32", running: 256, fresh: 32, speculation: BOTH, aimMs: 1 },
  { ...plain, name: "2,000 waiting", running: 256, fresh: 8, waiting: 2000, speculation: ["off"], aimMs: 3 },
  {
    ...plain,
    name: "10,000 waiting",
    running: 256,
    fresh: 8,
    waiting: 10_000,
    speculation: ["off"],
    aimMs: 15,
  },
  { ...plain, name: "256 TPOTs", running: 256, fresh: 8, distinctTpots: true, speculation: ["on"], aimMs: 2 },
]

/** Decisions before the measured ones: until so many run, and then for compiled code and what is learnt of lengths. */
const MOST_TO_FILL = 5000
const WARM_UP = 400
/** However long they take: fewer have no 99th percentile to speak of. */
const LEAST_DECISIONS = 20

interface Measured {
  policy: PolicyName
  speculation: Speculation
  admission: PolicyOptions["admission"]
  decisions: number
  rounds: number
  seconds: number
}

function measure(at: Case, { policy, speculation, admission, rounds, ...most }: Measured): Row {
  // Firm promises are planned by the dynamic program where there is no margin.
  const policyOptions = { speculation, admission, ...(admission === "firm" && { margin: 0 }) }
  let counts = { warmUp: WARM_UP, decisions: most.decisions }
  const all = Array.from({ length: rounds }, (_, round) => {
    const load = new Load(at, policy, policyOptions, 7)
    for (let i = 0; i < MOST_TO_FILL && !load.full; i++) load.decide()
    load.openQueue()
    // What the first round has time for, all do: the same decisions.
    const seconds = round === 0 ? most.seconds : Infinity
    const warmUp = decisionsIn(load, counts.warmUp, seconds / 3).length
    const made = decisionsIn(load, counts.decisions, seconds)
    counts = { warmUp, decisions: made.length }
    return made
  })
  const { decisions } = counts
  const [p50Ms, p99Ms, maxMs] = mediansOf(all)
  const least = all[0]!.map((_, i) => Math.min(...all.map((round) => round[i]!.ms)))
  const { name, prefixTokens, tenants, aimMs = null } = at
  const meanItems = all[0]!.reduce((sum, { items }) => sum + items, 0) / decisions
  return {
    ...{ case: name, policy, speculation, admission, prefixTokens, tenants, decisions, meanItems },
    ...{ p50Ms, p99Ms, maxMs, aimMs, leastP99Ms: quantiles(least)[1] },
  }
}

/** So many decisions, fewer where they take longer than so many seconds. */
function decisionsIn(load: Load, most: number, seconds: number): Decision[] {
  const endMs = performance.now() + seconds * 1000
  const made: Decision[] = []
  while (made.length < most && (made.length < LEAST_DECISIONS || performance.now() < endMs))
    made.push(load.decide())
  return made
}

type Levels = [p50: number, p99: number, max: number]

function mediansOf(rounds: readonly (readonly Decision[])[]): Levels {
  const each = rounds.map((round) => quantiles(round.map(({ ms }) => ms)))
  return [0, 1, 2].map((level) => median(each.map((levels) => levels[level]!))) as Levels
}

function quantiles(times: number[]): Levels {
  times.sort((a, b) => a - b)
  return [quantileSorted(times, 0.5), quantileSorted(times, 0.99), times[times.length - 1]!]
}

function sizesIn(text: string): Case[] {
  return text.split(",").map((part) => {
    const counts = part.trim().split("+").map(Number)
    const [running = 0, fresh = 0, waiting = 0] = counts
    if (running < 1 || counts.length > 3 || !counts.every((count) => Number.isInteger(count) && count >= 0))
      throw new InvalidArgumentError("It must be running+new or running+new+waiting, for example 256+32.")
    return { ...plain, name: part.trim(), running, fresh, waiting, speculation: BOTH }
  })
}

/** Every case with each beginning of prompts. */
function withPrefixes(cases: readonly Case[], prefixes: readonly number[]): Case[] {
  return cases.flatMap((each) => prefixes.map((prefixTokens) => ({ ...each, prefixTokens })))
}

function prefixesIn(text: string): number[] {
  return text.split(",").map((part) => {
    const tokens = Number(part)
    if (Number.isInteger(tokens) && tokens >= 0 && tokens % 16 === 0 && tokens <= SHARED_TOKENS) return tokens
    throw new InvalidArgumentError(`It must be multiples of 16 up to ${SHARED_TOKENS}, with commas between.`)
  })
}

const options = new Command("bench/planner-speed.ts")
  .option("--sizes <list>", "running+new or running+new+waiting (default: the cases that have aims)", sizesIn)
  .option("--prefixes <list>", "tokens that all prompts share at their beginning", prefixesIn, [
    0,
    SHARED_TOKENS,
  ])
  .option("--tenants <n>", "that send in turn", wholeNumber(1, 10_000), 1)
  .option("--distinct-tpots", "with --sizes: every request has a TPOT of its own")
  .option("--policies <list>", "scheduling policies", listOf(POLICY_NAMES), ["slos-serve"])
  .option("--speculation <list>", "off, on or both with a comma", listOf(BOTH), BOTH)
  .addOption(
    new Option("--admission <kind>", "when a promise is given")
      .choices(["revocable", "firm"])
      .default("revocable"),
  )
  .option("--decisions <n>", "measured in a round, after a warm-up", wholeNumber(1, 1e6), 1000)
  .option(
    "--seconds <n>",
    "measure no longer in a round: slow cases make fewer decisions",
    numberIn(0, 1e5),
    15,
  )
  .option("--rounds <n>", "of the same decisions", wholeNumber(1, 1000), 3)
  .option("--json", "print JSON")
  .option("--out <file>", "write the JSON to a file")
  .parse()
  .opts<{
    sizes?: Case[]
    prefixes: number[]
    tenants: number
    distinctTpots?: true
    policies: PolicyName[]
    speculation: readonly Speculation[]
    admission: PolicyOptions["admission"]
    decisions: number
    rounds: number
    seconds: number
    json?: true
    out?: string
  }>()

const { admission, decisions, rounds, seconds, sizes, tenants, distinctTpots = false } = options
const cases =
  sizes?.map((size) => ({ ...size, tenants, distinctTpots })) ?? CASES.map((each) => ({ ...each, tenants }))
const rows: Row[] = []
for (const policy of options.policies) {
  for (const each of withPrefixes(cases, options.prefixes)) {
    for (const speculation of options.speculation.filter((way) => each.speculation.includes(way))) {
      const row = measure(each, { policy, speculation, admission, decisions, rounds, seconds })
      rows.push(row)
      const { p50Ms, p99Ms, maxMs } = row
      const text = [p50Ms, p99Ms, maxMs].map((ms) => ms.toPrecision(3)).join(", ")
      process.stderr.write(
        `${row.case}, prefix ${row.prefixTokens}, speculation ${speculation}: ${text} ms\n`,
      )
    }
  }
}
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(rows, null, 2)}\n`)
if (options.json) console.log(JSON.stringify(rows, null, 2))
else console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(shown))))

function shown([name, value]: [string, unknown]): [string, unknown] {
  return [name, typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(3)) : value]
}
