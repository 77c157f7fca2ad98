/** Routers at one rate, seed by seed: the share of requests that keep every SLO. Virtual time; a row of JSON a run.
 *
 *     node bench/fleet/router-at-rate.ts --scenario tools --replicas 8 --rate 1.4 --seconds 100 --seeds 8,9,10
 *     node bench/fleet/router-at-rate.ts --scenario shared --rate 10.5 --stale 0,100,300,500 --out rows.jsonl   # goes on there */
import { appendFileSync, readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { readClasses } from "../../src/load/classes.ts"
import type { RouterOptions } from "../../src/router/router.ts"
import { HARDWARE, SCENARIO_HARDWARE } from "../../src/sim/presets.ts"
import { runScenario } from "../../src/study/run.ts"
import { RUN_DEFAULTS } from "../../src/study/spec.ts"

const ROUTERS: Readonly<Record<string, RouterOptions>> = {
  "offers by prefix": { kind: "prefix-offer", reoffers: 3 },
  "offers by prefix, one re-offer": { kind: "prefix-offer", reoffers: 1 },
  "offers in turn": { kind: "offer", affinity: true, reoffers: 3 },
  "prefix score (llm-d)": { kind: "prefix-score" },
  "power of two": { kind: "power-of-two", affinity: true },
  "least loaded": { kind: "least-loaded", affinity: true },
}

const { values } = parseArgs({
  options: {
    scenario: { type: "string", default: "tools" },
    replicas: { type: "string", default: "8" },
    rate: { type: "string", default: "1.4" },
    seconds: { type: "string", default: "100" },
    seeds: { type: "string", default: "1" },
    /** Step times of the replicas, in turn. */
    paces: { type: "string", default: "1" },
    /** Ages of the router's snapshots, ms. */
    stale: { type: "string", default: "0" },
    routers: { type: "string", default: Object.keys(ROUTERS).join(";") },
    /** Rows are added to it, those that it has are not played again; without: only printed. */
    out: { type: "string" },
  },
})
const numbers = (text: string) => text.split(",").map(Number)
const { scenario, out } = values
const hardware = HARDWARE[SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
const [replicas, rate, seconds] = [values.replicas, values.rate, values.seconds].map(Number) as [
  number,
  number,
  number,
]
const paces = numbers(values.paces)

interface Asked {
  staleMs: number
  seed: number
  router: string
}

const rowOf = ({ staleMs, seed, router }: Asked) => ({
  ...{ scenario, replicas, rate, seconds, paces, staleMs, seed, router },
})

function known(): Set<string> {
  if (out === undefined) return new Set()
  try {
    const lines = readFileSync(out, "utf8").split("\n").filter(Boolean)
    return new Set(
      lines.map((line) => {
        const { kept: _, total: __, ...row } = JSON.parse(line) as object & { kept: number; total: number }
        return JSON.stringify(row)
      }),
    )
  } catch {
    return new Set()
  }
}

function play({ staleMs, seed, router }: Asked) {
  const run = runScenario(
    {
      ...RUN_DEFAULTS,
      ...{
        scenario,
        policy: "slos-serve",
        hardware,
        replicas,
        router: ROUTERS[router]!,
        paces,
        staleMs,
        seed,
      },
      ...{ ratePerSec: rate * replicas, durationS: seconds, leadIn: 0.2 },
      classes: readClasses(undefined),
      maxSequenceTokens: hardware.contextTokens - 1,
    },
    {},
  )
  const { attained, total } = run.attainment
  return { kept: Math.round((10_000 * attained) / total) / 100, total }
}

const there = known()
for (const staleMs of numbers(values.stale))
  for (const seed of numbers(values.seeds))
    for (const router of values.routers.split(";")) {
      const asked = { staleMs, seed, router }
      if (there.has(JSON.stringify(rowOf(asked)))) continue
      const line = JSON.stringify({ ...rowOf(asked), ...play(asked) })
      console.log(line)
      if (out !== undefined) appendFileSync(out, `${line}\n`)
    }
