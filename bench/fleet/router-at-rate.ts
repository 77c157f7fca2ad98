/** Routers at one rate, seed by seed: the share of requests that keep every SLO. Virtual time; a row of JSON a run.
 *
 *     node bench/fleet/router-at-rate.ts --scenario tools --replicas 8 --rate 1.4 --seconds 100 --seeds 8,9,10 */
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
}

const { values } = parseArgs({
  options: {
    scenario: { type: "string", default: "tools" },
    replicas: { type: "string", default: "8" },
    rate: { type: "string", default: "1.4" },
    seconds: { type: "string", default: "100" },
    seeds: { type: "string", default: "1" },
    paces: { type: "string", default: "1" },
    routers: { type: "string", default: Object.keys(ROUTERS).join(";") },
  },
})
const { scenario } = values
const hardware = HARDWARE[SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"]!
const replicas = Number(values.replicas)
const paces = values.paces.split(",").map(Number)

for (const seed of values.seeds.split(",").map(Number))
  for (const name of values.routers.split(";")) {
    const run = runScenario(
      {
        ...RUN_DEFAULTS,
        ...{ scenario, policy: "slos-serve", hardware, replicas, router: ROUTERS[name]!, paces, seed },
        ...{ ratePerSec: Number(values.rate) * replicas, durationS: Number(values.seconds), leadIn: 0.2 },
        classes: readClasses(undefined),
        maxSequenceTokens: hardware.contextTokens - 1,
      },
      {},
    )
    const { attained, total } = run.attainment
    const kept = Math.round((10_000 * attained) / total) / 100
    console.log(
      JSON.stringify({
        scenario,
        replicas,
        rate: Number(values.rate),
        paces,
        seed,
        router: name,
        kept,
        total,
      }),
    )
  }
