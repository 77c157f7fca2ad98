/** What routing one request costs, by kind of router and number of replicas: to say in which order replicas are asked, and to
 * note where the request went. Offers are the replicas' work and not part of it. Requests begin with one of 200 system
 * prompts or go on with a session; three replicas are heard of anew between two requests. */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import type { Snapshot } from "../../src/core/protocol.ts"
import { Random } from "../../src/random.ts"
import { Router } from "../../src/router/router.ts"
import { ROUTER_KINDS } from "../../src/router/routers.ts"
import type { ReplicaView, Routed } from "../../src/router/target.ts"

const SIZES = [1, 4, 16, 64, 256, 1024]
const BLOCK_TOKENS = 16
const SYSTEM_BLOCKS = 100
const OWN_BLOCKS = 30
const HEARD_BETWEEN = 3

const { values } = parseArgs({
  options: { out: { type: "string" }, requests: { type: "string", default: "4000" } },
})
const REQUESTS = Number(values.requests)

class View implements ReplicaView {
  readonly alive = true
  #snapshot: Snapshot
  constructor(random: Random) {
    this.#snapshot = snapshotOf(random, 0)
  }
  snapshot(): Snapshot {
    return this.#snapshot
  }
  heard(random: Random, nowUs: number): void {
    this.#snapshot = snapshotOf(random, nowUs)
  }
}

function snapshotOf(random: Random, nowUs: number): Snapshot {
  return {
    ...{ nowUs, waiting: random.below(5), running: random.below(60), bestEffort: 0 },
    ...{ kvUsedTokens: 80_000, kvCachedTokens: 30_000, kvCapacityTokens: 100_000, kvEvictedTokens: 0 },
    ...{ batchInFlight: true, prefillBacklogTokens: random.below(4000), prefillUsPerToken: 80 },
    ...{ calibration: [1, 1, 1], speculation: [] },
  }
}

function requestsOf(random: Random): Routed[] {
  return Array.from({ length: REQUESTS }, (_, id) => {
    const system = Math.floor(200 * random.uniform() ** 3)
    const prefix = Array.from({ length: SYSTEM_BLOCKS + OWN_BLOCKS }, (_, block) =>
      block < SYSTEM_BLOCKS ? system * 1000 + block : 1e9 + id * 1000 + block,
    )
    const session = random.uniform() < 0.5 ? random.below(1000) : -1
    return { session, promptTokens: prefix.length * BLOCK_TOKENS + 5, prefix }
  })
}

/** µs of CPU time a request, whatever else the machine does: the best of three rounds, after one that warms up, less what the
 * round takes without a router. */
function costUs(kind: (typeof ROUTER_KINDS)[number], replicas: number): number {
  const rounds = Array.from({ length: 4 }, (_, round) => round)
  const best = (routes: boolean) =>
    Math.min(...rounds.map((round) => roundUs(kind, replicas, round, routes)).slice(1))
  return Math.max(0, best(true) - best(false))
}

function roundUs(
  kind: (typeof ROUTER_KINDS)[number],
  replicas: number,
  round: number,
  routes: boolean,
): number {
  const random = new Random("router cost", round)
  const requests = requestsOf(random)
  const views = Array.from({ length: replicas }, () => new View(random))
  const router = new Router({ kind, affinity: true })
  const before = process.cpuUsage()
  for (const [i, request] of requests.entries()) {
    const nowUs = i * 100
    for (let n = 0; n < HEARD_BETWEEN; n++) views[random.below(replicas)]!.heard(random, nowUs)
    const chances = [random.uniform(), random.uniform()] as const
    if (!routes) continue
    const order = router.order(request, views, chances)
    router.placed(request, views, order[0]!, nowUs)
  }
  const { user, system } = process.cpuUsage(before)
  return (user + system) / REQUESTS
}

const rows = ROUTER_KINDS.map((kind) => ({
  kind,
  ...Object.fromEntries(SIZES.map((replicas) => [replicas, Number(costUs(kind, replicas).toFixed(1))])),
}))
console.table(rows)
if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(rows, null, 1)}\n`)
