/** Tenants that share engines that own their batching, through our gateway and through a balancer: what each keeps beside another
 * that floods. The cases of bench/tenants.ts on simulated vLLMs whose step times are hidden from the gateway; virtual time. A row
 * of JSON a run.
 *
 *     node bench/fleet/tenants.ts --case "steady flood of two replicas" --replicas 2 --seeds 1,2,3 */
import { parseArgs } from "node:util"
import type { RequestId } from "../../src/core/protocol.ts"
import { ENGINE_RULES } from "../../src/fleet/engine-rules.ts"
import { readClasses } from "../../src/load/classes.ts"
import { HARDWARE } from "../../src/sim/presets.ts"
import type { SimRequest } from "../../src/sim/world.ts"
import { RUN_DEFAULTS, type RunSpec } from "../../src/study/spec.ts"
import { CASES, type Case, HARDWARE_NAME, Requests } from "../tenants/cases.ts"
import { type FrontName, type Requests as Played, play } from "./virtual/play.ts"

const { values } = parseArgs({
  options: {
    case: { type: "string", multiple: true, default: ["flood"] },
    fronts: { type: "string", default: "gateway,least connections" },
    replicas: { type: "string", default: "2" },
    seeds: { type: "string", default: "1" },
  },
})
/** Tenants shown by themselves. */
const MOST_SHOWN = 5

/** A case as it plays. A session counts as one request, kept where all its rounds are. */
class Sent implements Played {
  readonly first: readonly SimRequest[]
  readonly kept: number[]
  readonly #requests: Requests
  readonly #missed = new Set<number>()

  constructor(one: Case, seed: number) {
    this.#requests = new Requests(one, seed)
    this.first = this.#requests.first
    this.kept = Object.keys(one.weights).map(() => 0)
  }

  totalOf(tenant: number): number {
    return this.first.filter(({ spec }) => spec.tenant === tenant).length
  }

  ended(id: RequestId, { attained }: { attained: boolean }): { ok: boolean; counted: boolean } {
    const { session, tenant } = this.#requests.all.get(id)!.spec
    const key = session >= 0 ? session : -1 - id
    if (!attained) this.#missed.add(key)
    const isLast = this.#requests.follow(id, 0) === null
    if (isLast && !this.#missed.has(key)) this.kept[tenant!]!++
    return { ok: attained, counted: true }
  }

  follow(id: RequestId, nowUs: number): SimRequest | null {
    return this.#requests.follow(id, nowUs)
  }
}

const hardware = HARDWARE[HARDWARE_NAME]!
const rules = { ...ENGINE_RULES.vllm, kvTokens: hardware.kvTokens }
const replicas = Number(values.replicas)
for (const one of CASES.filter(({ name }) => values.case.includes(name)))
  for (const seed of values.seeds.split(",").map(Number))
    for (const front of values.fronts.split(",") as FrontName[]) {
      const spec: RunSpec = {
        ...RUN_DEFAULTS,
        ...{ scenario: "chatbot", policy: "vllm", hardware, replicas, seed },
        options: { tokenBudget: rules.tokenBudget },
        ...{ ratePerSec: 1, durationS: one.durationS, classes: readClasses(undefined) },
        maxSequenceTokens: hardware.contextTokens - 1,
      }
      const sent = new Sent(one, seed)
      play(spec, front, rules, undefined, undefined, sent)
      const tenants = Object.keys(one.weights).map((name, i) => [name, `${sent.kept[i]}/${sent.totalOf(i)}`])
      const all = `${sent.kept.reduce((sum, kept) => sum + kept, 0)}/${sent.first.length}`
      const shown = Object.fromEntries(tenants.slice(0, MOST_SHOWN))
      console.log(JSON.stringify({ case: one.name, engine: "vllm", replicas, seed, front, ...shown, all }))
    }
