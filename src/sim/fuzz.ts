/** Simulation fuzz: random fleets, workloads and faults; every invariant after every step. Usage:
 * npm run sim:fuzz -- --seeds N [--first-seed S] [--policy P] */
import { parseArgs } from "node:util"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import { Audit } from "./audit.ts"
import { simulateFleet } from "./fleet.ts"
import { fuzzCase } from "./fuzz-case.ts"

export interface FuzzRun {
  /** Null when every invariant held, else the first one broken and how to see it again. */
  failure: string | null
  requests: number
  steps: number
  promises: number
}

/** One seed, played and audited. */
export function fuzz(seed: number, policy?: PolicyName): FuzzRun {
  const { fleet } = fuzzCase(seed, policy)
  const audit = new Audit({ fleet })
  const run = { failure: null, requests: fleet.requests.length, steps: 0, promises: 0 }
  try {
    const result = simulateFleet(audit.watched(fleet))
    audit.finish(result)
    return { ...run, steps: result.steps, promises: audit.promises }
  } catch (error) {
    const replay = `npm run sim:fuzz -- --seeds 1 --first-seed ${seed}${policy ? ` --policy ${policy}` : ""}`
    return { ...run, failure: `seed ${seed}: ${(error as Error).message}\n  replay: ${replay}` }
  }
}

function main(): number {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "100" },
      "first-seed": { type: "string", default: "1" },
      policy: { type: "string" },
    },
  })
  const seeds = Number(values.seeds)
  const first = Number(values["first-seed"])
  const policy = POLICY_NAMES.find((name) => name === values.policy)
  if (!(seeds > 0) || !Number.isInteger(first) || (values.policy !== undefined && policy === undefined)) {
    console.error(`--seeds and --first-seed are whole numbers, --policy one of ${POLICY_NAMES.join(", ")}`)
    return 2
  }
  let failures = 0
  const total = { requests: 0, steps: 0, promises: 0 }
  for (let seed = first; seed < first + seeds; seed++) {
    const run = fuzz(seed, policy)
    for (const key of ["requests", "steps", "promises"] as const) total[key] += run[key]
    if (run.failure === null) continue
    failures++
    console.log(run.failure)
  }
  const { requests, steps, promises } = total
  console.log(
    `${seeds} seeds, ${requests} sessions, ${steps} steps, ${promises} promises: ${failures} failed`,
  )
  return failures > 0 ? 1 : 0
}

if (import.meta.main) process.exitCode = main()
