/** Tenants that share an engine: what each keeps beside another that floods, against being alone, and whether all keep as
 * much where all behave. Virtual time, opt-6.7b-a100. Of many tenants the one that keeps the smallest share of its requests
 * is shown, and those together that the case does not name. */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import type { PolicyOptions } from "../src/core/options.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import { simulateFleet } from "../src/sim/fleet.ts"
import { HARDWARE, limitsOf } from "../src/sim/presets.ts"
import type { SimRequest } from "../src/sim/simulate.ts"
import { routerFor } from "../src/study/spec.ts"
import { APP_COUNT, CASES, type Case, HARDWARE_NAME, Requests } from "./tenants/cases.ts"

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    seeds: { type: "string", default: "3" },
    case: { type: "string", multiple: true },
    system: { type: "string", multiple: true },
  },
})
const SEEDS = Number(values.seeds)

interface System {
  name: string
  policy: PolicyName
  options?: Partial<PolicyOptions>
  /** All requests are of one tenant to it. */
  blind?: boolean
}

const SYSTEMS: readonly System[] = [
  { name: "slos-serve", policy: "slos-serve" },
  { name: "slos-serve, one tenant", policy: "slos-serve", blind: true },
  { name: "edf-drop", policy: "edf-drop" },
  { name: "vllm 1024", policy: "vllm", options: { tokenBudget: 1024 } },
  { name: "vllm-priority 1024", policy: "vllm-priority", options: { tokenBudget: 1024 } },
]

interface Row {
  case: string
  system: string
  tenant: string
  /** Requests that kept every SLO (all rounds of a session), over all seeds; of those without one: that ended. */
  kept: number
  total: number
  /** Time to first token of its requests, s. */
  ttftP50S: number
  ttftMaxS: number
  /** From arrival to end, s. */
  meanS: number
  /** Tokens served over weight, of all tenants' until the last arrival: prompt tokens count one, output tokens two. */
  share: number
}

interface Tally {
  missed: Set<number>
  ended: Set<number>
  ttftS: number[]
  endS: number[]
  tokens: number
}

function playSeed(
  one: Case,
  { policy, options = {}, blind }: System,
  seed: number,
  tallies: readonly Tally[],
  totals: number[],
  only?: string,
): void {
  const hardware = HARDWARE[HARDWARE_NAME]!
  const limits = { ...limitsOf(hardware), ...(one.kvTokens !== undefined && { kvTokens: one.kvTokens }) }
  const requests = new Requests(one, seed, only)
  const seen = (request: SimRequest | null) =>
    request && (blind ? { ...request, spec: { ...request.spec, tenant: 0 } } : request)
  const config = {
    ...{ limits, cost: hardware.cost, policy, options, apps: APP_COUNT, maxQueue: 20_000 },
    ...(!blind && { tenantWeights: Object.values(one.weights) }),
  }
  /** A session counts as its first round. */
  const keyOf = ({ spec }: SimRequest) => seed * 1e6 + (spec.session >= 0 ? spec.session : spec.id)
  for (const { spec } of requests.first) totals[spec.tenant!]!++
  const begun = new Set<number>()
  simulateFleet({
    replicas: Array.from({ length: one.replicas ?? 1 }, () => config),
    requests: requests.first.map((request) => seen(request)!),
    follow: (id, nowUs) => seen(requests.follow(id, nowUs)),
    router: routerFor(policy),
    noiseSigma: 0.05,
    seed,
    onEffect: (effect, nowUs) => {
      if (!("id" in effect)) return
      const request = requests.all.get(effect.id)!
      const tally = tallies[request.spec.tenant!]!
      if (effect.type === "token" && nowUs <= one.durationS * 1e6) {
        if (!begun.has(effect.id)) tally.tokens += request.spec.promptTokens
        begun.add(effect.id)
        tally.tokens += 2 * effect.count
      }
      if (effect.type === "rejected") tally.missed.add(keyOf(request))
      if (effect.type !== "finished") return
      const { outcome } = effect
      tally.ended.add(keyOf(request))
      if (outcome.tier === "slo" && !outcome.attained) tally.missed.add(keyOf(request))
      tally.ttftS.push((outcome.firstTokenUs - outcome.arrivalUs) / 1e6)
      tally.endS.push((outcome.finishedUs - outcome.arrivalUs) / 1e6)
    },
  })
}

function play(one: Case, system: System, only?: string): Row[] {
  const tenants = Object.keys(one.weights)
  const tallies = tenants.map(
    (): Tally => ({ missed: new Set(), ended: new Set(), ttftS: [], endS: [], tokens: 0 }),
  )
  const totals = tenants.map(() => 0)
  for (let seed = 1; seed <= SEEDS; seed++) playSeed(one, system, seed, tallies, totals, only)
  const served = tallies.map((tally, i) => tally.tokens / one.weights[tenants[i]!]!)
  const all = served.reduce((sum, tokens) => sum + tokens, 0)
  const played = tenants.map((_, i) => i).filter((i) => only === undefined || tenants[i] === only)
  const rows = played.map((i) => rowOf(tenants[i]!, [tallies[i]!], totals[i]!, served[i]! / all))
  const sum = played.reduce((sum, i) => sum + totals[i]!, 0)
  const together = rowOf(
    "all",
    played.map((i) => tallies[i]!),
    sum,
    1,
  )
  const shown = rows.length <= MOST_ROWS ? rows : [worstOf(rows)]
  return rows.length === 1 ? rows : [...shown, together]

  function rowOf(tenant: string, of: readonly Tally[], total: number, share: number): Row {
    const ttftS = of.flatMap((tally) => tally.ttftS).sort((a, b) => a - b)
    const endS = of.flatMap((tally) => tally.endS)
    let kept = 0
    for (const { missed, ended } of of) for (const key of ended) if (!missed.has(key)) kept++
    return {
      ...{
        case: one.name,
        system: only === undefined ? system.name : `${system.name}, alone`,
        tenant,
        kept,
        total,
        share,
      },
      ttftP50S: ttftS[ttftS.length >> 1] ?? Number.NaN,
      ttftMaxS: ttftS.at(-1) ?? Number.NaN,
      meanS: endS.reduce((sum, s) => sum + s, 0) / endS.length,
    }
  }
}

/** More tenants are not shown one by one. */
const MOST_ROWS = 4

function worstOf(rows: readonly Row[]): Row {
  const share = ({ kept, total }: Row) => kept / Math.max(1, total)
  const worst = rows.reduce((worst, row) => (share(row) < share(worst) ? row : worst))
  return { ...worst, tenant: `least: ${worst.tenant}` }
}

function format(row: Row): string {
  const { kept, total, ttftP50S, ttftMaxS, meanS, share } = row
  const cells = [row.system.padEnd(24), row.tenant.padEnd(10), `${kept}/${total}`.padStart(12)]
  cells.push(`${((100 * kept) / total).toFixed(1)}%`.padStart(7))
  for (const seconds of [ttftP50S, ttftMaxS, meanS]) cells.push(seconds.toFixed(2).padStart(8))
  cells.push(`${(100 * share).toFixed(1)}%`.padStart(7))
  return cells.join(" ")
}

const lines: string[] = []
const say = (line: string) => {
  lines.push(line)
  console.log(line)
}
for (const one of CASES) {
  if (values.case !== undefined && !values.case.some((name) => one.name.includes(name))) continue
  say(`\n${one.name}`)
  say(`${"system".padEnd(24)} who               kept       %  TTFT50s  TTFTmax   mean s   share`)
  for (const system of SYSTEMS) {
    if (values.system !== undefined && !values.system.includes(system.name)) continue
    for (const row of play(one, system)) say(format(row))
  }
  for (const tenant of one.light) for (const row of play(one, SYSTEMS[0]!, tenant)) say(format(row))
}
if (values.out !== undefined) writeFileSync(values.out, `${lines.join("\n")}\n`)
