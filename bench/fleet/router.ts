/** Which router a fleet is to have: capacity per GPU of each kind, for fleets from one replica to 256, with fresh and stale
 * snapshots, of equal and unequal replicas, with and without prefixes that requests share. Virtual time. Results are kept
 * one by one, so that it goes on where it stopped; a figure and a table are made of what there is. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { readClasses } from "../../src/load/classes.ts"
import type { RouterOptions } from "../../src/router/router.ts"
import { HARDWARE, SCENARIO_HARDWARE } from "../../src/sim/presets.ts"
import { gridOf, rateOf } from "../../src/study/capacity.ts"
import { runTasks } from "../../src/study/pool.ts"
import { RUN_DEFAULTS, type RunSpec } from "../../src/study/spec.ts"
import type { CapacityTask } from "../../src/study/tasks.ts"
import { figure } from "./figure.ts"

/** All replicas run our policy, unless it says so. */
const ROUTERS: Readonly<Record<string, { router: RouterOptions; policy?: "vllm" }>> = {
  "offers by prefix": { router: { kind: "prefix-offer", reoffers: 3 } },
  "offers in turn": { router: { kind: "offer", affinity: true, reoffers: 3 } },
  "least loaded": { router: { kind: "least-loaded", affinity: true } },
  "power of two": { router: { kind: "power-of-two", affinity: true } },
  "prefix score (llm-d)": { router: { kind: "prefix-score" } },
  "cache-aware (SGLang)": { router: { kind: "cache-aware" } },
  "vLLM v1 + cache-aware": { router: { kind: "cache-aware" }, policy: "vllm" },
}

/** Requests/s of one replica near which a search begins; span of the arrivals, s: long against a request. */
const SCENARIOS: Readonly<Record<string, { guess: number; spanS: number }>> = {
  chatbot: { guess: 8, spanS: 60 },
  tools: { guess: 1.5, spanS: 100 },
  shared: { guess: 13, spanS: 60 },
}

interface Case {
  scenario: string
  replicas: number
  staleMs: number
  /** Step times, in turn. */
  paces: readonly number[]
}

export interface Row extends Case {
  router: string
  /** Requests/s and GPU at which 90% keep every SLO: all seeds together, and each alone. */
  perGpu: number
  seeds: number[]
}

const { values } = parseArgs({
  options: {
    scenarios: { type: "string", default: Object.keys(SCENARIOS).join(",") },
    replicas: { type: "string", default: "1,4,16,64,256" },
    middle: { type: "string", default: "16" },
    stale: { type: "string", default: "0,100,500" },
    routers: { type: "string", default: Object.keys(ROUTERS).join(",") },
    seeds: { type: "string", default: "3" },
    out: { type: "string", default: "bench/results/fleet" },
    cache: { type: "string", default: "out/fleet-router" },
  },
})
const list = (text: string) => text.split(",")

/** With how many replicas stale snapshots and unequal replicas are tried. */
const MIDDLE = Number(values.middle)
const EQUAL = [1]
const UNEQUAL = [1, 1, 1.5, 2]

const CASES: readonly Case[] = list(values.scenarios).flatMap((scenario) => [
  ...list(values.replicas).map((n) => ({ scenario, replicas: Number(n), staleMs: 0, paces: EQUAL })),
  ...list(values.stale)
    .filter((ms) => ms !== "0" && MIDDLE > 0)
    .map((ms) => ({ scenario, replicas: MIDDLE, staleMs: Number(ms), paces: EQUAL })),
  ...(MIDDLE > 0 ? [{ scenario, replicas: MIDDLE, staleMs: 0, paces: UNEQUAL }] : []),
])

function taskOf(one: Case, name: string): CapacityTask {
  const { scenario, replicas, staleMs, paces } = one
  const { router, policy = "slos-serve" } = ROUTERS[name]!
  const { guess, spanS } = SCENARIOS[scenario]!
  const hardware = HARDWARE[SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
  const share = paces.reduce((sum, pace) => sum + 1 / pace, 0) / paces.length
  const base: RunSpec = {
    ...RUN_DEFAULTS,
    ...{ scenario, policy, hardware, replicas, router, staleMs, paces },
    ...(policy === "vllm" && { options: { tokenBudget: 1024 } }),
    ...{ ratePerSec: 1, durationS: spanS, leadIn: 0.2 },
    classes: readClasses(undefined),
    maxSequenceTokens: hardware.contextTokens - 1,
  }
  const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1)
  // A small fleet needs more time for as many requests; a large one has them sooner than a session takes.
  const requests = Math.min(2000, 500 * replicas)
  const size = { requests, spanS: replicas > 64 ? spanS / 2 : spanS }
  return {
    ...{ kind: "capacity", system: policy === "vllm" ? "vllm-v1" : "slos-serve", base, size },
    ...{ tuneSeeds: [], seeds, speculate: [false], fixed: true, spread: true },
    guess: rateOf(gridOf(replicas * (mostHeld(one) ?? guess * share))),
  }
}

/** What the best router held so far, requests/s and GPU: a search that begins there takes the fewest runs. */
function mostHeld(one: Case): number | undefined {
  const held = [...rows.values()].filter((row) => caseOf(row) === caseOf(one)).map(({ perGpu }) => perGpu)
  return held.length > 0 ? Math.max(...held) : undefined
}
const caseOf = ({ scenario, replicas, staleMs, paces }: Case) =>
  JSON.stringify([scenario, replicas, staleMs, paces])

const path = `${values.out}/router.json`
const keyOf = ({ scenario, replicas, staleMs, paces, router }: Omit<Row, "perGpu" | "seeds">) =>
  JSON.stringify([scenario, replicas, staleMs, paces, router])

function known(): Map<string, Row> {
  try {
    const rows = JSON.parse(readFileSync(path, "utf8")) as Row[]
    return new Map(rows.map((row) => [keyOf(row), row]))
  } catch {
    return new Map()
  }
}

mkdirSync(values.out, { recursive: true })
const rows = known()
/** The smallest fleets first: what takes longest comes last. */
const cells = [...CASES]
  .sort((a, b) => a.replicas - b.replicas)
  .flatMap((one) => list(values.routers).map((router) => ({ ...one, router })))
  // One replica needs no router.
  .filter(
    ({ replicas, router }) => replicas > 1 || router.startsWith("offers by") || router.startsWith("vLLM"),
  )
for (const cell of cells) {
  if (rows.has(keyOf(cell))) continue
  const [results] = await runTasks([taskOf(cell, cell.router)], { workers: 0, cache: values.cache })
  const { ratePerSec, perSeed } = results![0]!
  const perGpu = (rate: number) => Number((rate / cell.replicas).toPrecision(4))
  const row = { ...cell, perGpu: perGpu(ratePerSec), seeds: perSeed.map(perGpu) }
  rows.set(keyOf(row), row)
  writeFileSync(path, `${JSON.stringify([...rows.values()], null, 1)}\n`)
  const { scenario, replicas, staleMs, router } = row
  console.log(
    `${scenario} × ${replicas}, ${staleMs} ms old, ${row.paces}: ${router} ${row.perGpu}/s (${row.seeds})`,
  )
}
await figure([...rows.values()], `${values.out}/router.svg`)
