/** Simulation fuzz: random fleets, workloads and faults; every invariant after every step. Usage:
 * npm run sim:fuzz -- --seeds N [--first-seed S] [--policy P] [--depth D] */
import { parseArgs } from "node:util"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import { Audit } from "./audit.ts"
import { simulateFleet } from "./fleet.ts"
import { fuzzCase, ofSomeAdapters, ofSomeDepth, ofSomeLag, ofSomeTenants } from "./fuzz-case.ts"
import { withSomeRenewed, withSomeScored } from "./fuzz-extras.ts"

export interface FuzzRun {
  /** Null when every invariant held, else the first one broken and how to see it again. */
  failure: string | null
  requests: number
  steps: number
  /** Where the planner has all it needs to keep them: SLOs promised, and promises with a late token. */
  promises: number
  broken: number
}

/** Of firm promises under an exact timer so many may be late: admission is no schedule of whole batches, and a
 * batch once begun is not cut short for an arrival. */
export const MOST_BROKEN_SHARE = 0.002

/** One seed, played and audited. In every other one requests are of several tenants, and in every other several batches are in
 * flight; in some of several adapters; `depth`: so many in all. Further extras: fuzz-extras.ts. */
export function fuzz(seed: number, policy?: PolicyName, depth?: number): FuzzRun {
  const fuzzed = fuzzCase(seed, policy)
  const { fleet: single, exact, policy: played } = fuzzed
  const ofTenants = seed % 2 === 0 ? ofSomeTenants(single, seed) : single
  const deep = ofSomeLag(ofSomeDepth(ofTenants, seed, depth), seed)
  const adapted = exact ? deep : ofSomeAdapters(deep, seed)
  const fleet = withSomeRenewed(withSomeScored(adapted, fuzzed), fuzzed)
  const audit = new Audit({ fleet })
  const run = { failure: null, requests: fleet.requests.length, steps: 0, promises: 0, broken: 0 }
  try {
    const result = simulateFleet(audit.watched(fleet))
    audit.finish(result)
    // A batch that is planned ahead cannot wait for those that arrive meanwhile.
    const promised = exact && played === "slos-serve" && fleet.replicas[0]!.depth === undefined
    const promises = promised ? { promises: audit.promises, broken: audit.broken.size } : {}
    return { ...run, steps: result.steps, ...promises }
  } catch (error) {
    return {
      ...run,
      failure: `seed ${seed}: ${(error as Error).message}\n  replay: ${replay(seed, policy, depth)}`,
    }
  }
}

function replay(seed: number, policy?: PolicyName, depth?: number): string {
  const options = `${policy ? ` --policy ${policy}` : ""}${depth ? ` --depth ${depth}` : ""}`
  return `npm run sim:fuzz -- --seeds 1 --first-seed ${seed}${options}`
}

const USAGE =
  "npm run sim:fuzz -- --seeds N [--first-seed S] [--policy P] [--depth D]; " +
  `policies: ${POLICY_NAMES.join(", ")}`

function optionsOf() {
  try {
    return parseArgs({
      options: {
        seeds: { type: "string", default: "100" },
        "first-seed": { type: "string", default: "1" },
        policy: { type: "string" },
        depth: { type: "string" },
        help: { type: "boolean", default: false },
      },
    }).values
  } catch (error) {
    console.error(`${(error as Error).message.split("\n")[0]}\n${USAGE}`)
    return null
  }
}

function main(): number {
  const values = optionsOf()
  if (values === null) return 2
  if (values.help) {
    console.log(USAGE)
    return 0
  }
  const seeds = Number(values.seeds)
  const first = Number(values["first-seed"])
  const policy = POLICY_NAMES.find((name) => name === values.policy)
  const depth = values.depth === undefined ? undefined : Number(values.depth)
  if (!(seeds > 0) || !Number.isInteger(first) || (values.policy !== undefined && policy === undefined)) {
    console.error(`--seeds and --first-seed are whole numbers, --policy one of the table\n${USAGE}`)
    return 2
  }
  if (depth !== undefined && !(Number.isInteger(depth) && depth >= 1)) {
    console.error(`--depth is a whole number, 1 or more\n${USAGE}`)
    return 2
  }
  let failures = 0
  const total = { requests: 0, steps: 0, promises: 0, broken: 0 }
  for (let seed = first; seed < first + seeds; seed++) {
    const run = fuzz(seed, policy, depth)
    for (const key of ["requests", "steps", "promises", "broken"] as const) total[key] += run[key]
    if (run.failure !== null) failures++
    if (run.failure !== null) console.log(run.failure)
    else if (run.broken > 0) {
      console.log(
        `seed ${seed}: ${run.broken} of ${run.promises} promises late\n  replay: ${replay(seed, policy, depth)}`,
      )
    }
  }
  const { requests, steps, promises, broken } = total
  console.log(`${seeds} seeds, ${requests} sessions, ${steps} steps: ${failures} failed`)
  console.log(`firm promises under an exact timer: ${broken} of ${promises} late`)
  // Few promises are no statistic.
  return failures > 0 || (promises >= 1000 && broken > MOST_BROKEN_SHARE * promises) ? 1 : 0
}

if (import.meta.main) process.exitCode = main()
