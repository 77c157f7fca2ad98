/** Fuzz of a gateway before simulated replicas: random faults at any moment. Usage:
 * npm run sim:fuzz:gateway -- --seeds N [--first-seed S] [--json FILE] */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { assert } from "../core/assert.ts"
import type { Client, ClientEnd } from "./clients.ts"
import { simulateGateway } from "./gateway.ts"
import { type GatewayCase, gatewayCase } from "./gateway-case.ts"
import type { GatewayOptions } from "./gateway-options.ts"

export interface GatewayRun {
  /** Null when every invariant held, else the first one broken and how to see it again. */
  failure: string | null
  faults: number
  deaths: number
  requests: number
  tokens: number
  resumed: number
  ends: Partial<Record<ClientEnd, number>>
  /** From losing its replica to the next token, of each request that was lost, µs. */
  recoveriesUs: number[]
}

/** One seed, played and audited. */
export function fuzzGateway(seed: number): GatewayRun {
  const run: GatewayRun = {
    ...{
      failure: null,
      faults: 0,
      deaths: 0,
      requests: 0,
      tokens: 0,
      resumed: 0,
      ends: {},
      recoveriesUs: [],
    },
  }
  const played = gatewayCase(seed)
  try {
    const upsUs: number[] = []
    const onDecision: GatewayOptions["onDecision"] = (event, _effects, nowUs) => {
      if (event?.type === "replicaUp") upsUs.push(nowUs)
    }
    const { clients, faults, deaths, resumed } = simulateGateway({ ...played.options, onDecision })
    Object.assign(run, { faults, deaths, resumed })
    for (const client of clients.all.values()) {
      audit(client, played, upsUs)
      run.requests++
      run.tokens += client.tokens
      run.ends[client.end!] = (run.ends[client.end!] ?? 0) + 1
      if (client.longestRecoveryUs > 0) run.recoveriesUs.push(client.longestRecoveryUs)
    }
    return run
  } catch (error) {
    return { ...run, failure: `seed ${seed}: ${(error as Error).message}\n  replay: ${replay(seed)}` }
  }
}

/** Whether it ended for a reason that it had. */
function audit(
  { request, end, endUs, submissions }: Client,
  { options, poisoned, onlyPoison }: GatewayCase,
  upsUs: readonly number[],
): void {
  const { id } = request.spec
  const of = (kind: string) => (options.faults ?? []).some((fault) => fault.kind === kind)
  assert(end !== null, `request ${id} never ended`)
  assert(end !== "gatewayLost" || of("gatewayLoss"), `request ${id} lost a gateway that lived`)
  const refused = end === "full" && options.onPromise!(request) && submissions === 0
  assert(refused || (end !== "failed" && end !== "full"), `request ${id} ended as ${end}`)
  const untilUs = request.atUs + options.patienceUs!(request)
  const isEarly = end === "noReplica" && endUs < untilUs
  assert(!isEarly || options.foresees !== undefined, `request ${id} was failed before its time`)
  assert(
    !isEarly || options.foresees === "wrongly" || !upsUs.some((atUs) => atUs > endUs && atUs <= untilUs),
    `request ${id} was failed, and a replica came in its time`,
  )
  assert(end !== "poison" || submissions >= 2, `request ${id} was failed as poison after one try`)
  assert(
    end !== "poison" || !onlyPoison || poisoned.has(id),
    `request ${id} was failed in place of the poison`,
  )
  assert(end !== "unserved" || submissions > 8, `request ${id} was given up after ${submissions} tries`)
}

function replay(seed: number): string {
  return `npm run sim:fuzz:gateway -- --seeds 1 --first-seed ${seed}`
}

const USAGE = "npm run sim:fuzz:gateway -- --seeds N [--first-seed S] [--json FILE]"

function optionsOf() {
  try {
    return parseArgs({
      options: {
        seeds: { type: "string", default: "100" },
        "first-seed": { type: "string", default: "1" },
        json: { type: "string" },
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
  if (!(seeds > 0) || !Number.isInteger(first)) {
    console.error(`--seeds and --first-seed are whole numbers\n${USAGE}`)
    return 2
  }
  const total = {
    seeds,
    firstSeed: first,
    failed: 0,
    faults: 0,
    deaths: 0,
    requests: 0,
    tokens: 0,
    resumed: 0,
  }
  const ends: Partial<Record<ClientEnd, number>> = {}
  const recoveriesUs: number[] = []
  for (let seed = first; seed < first + seeds; seed++) {
    const run = fuzzGateway(seed)
    for (const key of ["faults", "deaths", "requests", "tokens", "resumed"] as const) total[key] += run[key]
    for (const [end, count] of Object.entries(run.ends))
      ends[end as ClientEnd] = (ends[end as ClientEnd] ?? 0) + count
    recoveriesUs.push(...run.recoveriesUs)
    if (run.failure === null) continue
    total.failed++
    console.log(run.failure)
  }
  const sorted = recoveriesUs.sort((a, b) => a - b)
  const quantileMs = (q: number) => Math.round((sorted[Math.floor(q * (sorted.length - 1))] ?? 0) / 1000)
  const recoveryMs = {
    count: sorted.length,
    p50: quantileMs(0.5),
    p90: quantileMs(0.9),
    p99: quantileMs(0.99),
  }
  const result = { ...total, ends, recoveryMs }
  console.log(JSON.stringify(result, null, 2))
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`)
  return total.failed > 0 ? 1 : 0
}

if (import.meta.main) process.exitCode = main()
