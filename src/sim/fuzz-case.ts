/** A random fleet with a random workload and random faults, for the simulation fuzz: all from one seed. */
import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import type { EngineLimits, RequestId } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import { Random } from "../random.ts"
import { ROUTER_KINDS } from "../router/routers.ts"
import type { Fault } from "./faults.ts"
import type { FleetOptions } from "./fleet.ts"
import type { SimRequest } from "./world.ts"

export interface FuzzCase {
  seed: number
  policy: PolicyName
  fleet: FleetOptions
  /** Admission is firm, the timer exact and of the paper's form (time by tokens and steps), one replica does all of
   * a request, sequences and KV suffice, nothing fails, and no pace changes on the way: the planner has all it
   * needs to keep what it promises. */
  exact: boolean
}

const APPS = 3
const SPAN_US = 4_000_000
/** More requests than are ever live in an exact case. */
const MOST_LIVE = 100

/** The case of `seed`; `policy` replaces the one that the seed would choose. */
export function fuzzCase(seed: number, policy?: PolicyName): FuzzCase {
  const random = new Random("sim fuzz", seed)
  const chosen = pick(random, POLICY_NAMES)
  const replicas = random.integer(1, 5)
  const exact = random.uniform() < 0.3
  const split = !exact && replicas > 1 && random.uniform() < 0.3 ? random.integer(1, replicas) : 0
  const config = (exact ? exactConfig : configOf)(random, policy ?? chosen)
  const players = playersOf(random, config.limits, exact, new Random("sim fuzz gaps", seed))
  // Twice the requests in a quarter of the time: promises under pressure.
  const { requests, follow } = exact
    ? sessionsOf(random, config.limits, players, random.integer(10, MOST_LIVE), SPAN_US / 4)
    : sessionsOf(random, config.limits, players, random.integer(3, 60), SPAN_US)
  return {
    seed,
    policy: policy ?? chosen,
    exact,
    fleet: {
      seed,
      replicas: Array.from({ length: replicas }, () => config),
      requests,
      follow,
      noiseSigma: exact ? 0 : pick(random, [0, 0.05, 0.3]),
      bias: exact ? 1 : pick(random, [1, 1, 0.8, 1.5]),
      router: routerOf(random),
      faults: exact ? [] : faultsOf(random, replicas, split),
      ...(split > 0 && {
        disaggregated: {
          prefill: split,
          decode: replicas - split,
          transferLatencyUs: random.integer(0, 3000),
          transferUsPerToken: pick(random, [0, 5, 50]),
          offers: seed % 2 === 0,
        },
      }),
      check: true,
      maxPolls: 200_000,
    },
  }
}

/** The same requests, but of these tenants: `tenantOf` is asked with a session, or the id of a request without one. */
export function ofTenants(
  fleet: FleetOptions,
  tenantWeights: readonly number[],
  tenantOf: (key: number) => number,
): FleetOptions {
  const given = <R extends SimRequest | null>(request: R): R => {
    if (request === null) return request
    const { spec } = request
    const tenant = tenantOf(spec.session >= 0 ? spec.session : spec.id)
    return { ...request, spec: { ...spec, tenant } }
  }
  const { follow } = fleet
  return {
    ...fleet,
    replicas: fleet.replicas.map((config) => ({ ...config, tenantWeights })),
    requests: fleet.requests.map(given),
    ...(follow && { follow: (id: RequestId, nowUs: number) => given(follow(id, nowUs)) }),
  }
}

/** Up to four tenants, of different weights; one of them sends more than the others. */
export function ofSomeTenants(fleet: FleetOptions, seed: number): FleetOptions {
  const random = new Random("sim fuzz tenants", seed)
  const weights = Array.from({ length: random.integer(2, 5) }, () => pick(random, [0.5, 1, 1, 3]))
  return ofTenants(fleet, weights, (key) =>
    Math.max(0, new Random("sim fuzz tenant", seed, key).integer(-2, weights.length)),
  )
}

/** In one of three seeds requests are of up to five adapters, more than fit one batch: a session and what begins alike has one.
 * Promises that are counted to the token know nothing of them. */
export function ofSomeAdapters(fleet: FleetOptions, seed: number): FleetOptions {
  const random = new Random("sim fuzz adapters", seed)
  if (random.uniform() >= 1 / 3) return fleet
  const [maxAdapters, count] = [random.integer(1, 4), random.integer(2, 6)]
  const given = <R extends SimRequest | null>(request: R): R => {
    if (request === null) return request
    const { id, session, prefix } = request.spec
    const key = session >= 0 ? session : (prefix[0] ?? id)
    const adapter = new Random("sim fuzz adapter", seed, key).integer(0, count)
    return adapter === 0 ? request : { ...request, spec: { ...request.spec, adapter } }
  }
  const { follow } = fleet
  return {
    ...fleet,
    replicas: fleet.replicas.map((config) => ({ ...config, limits: { ...config.limits, maxAdapters } })),
    requests: fleet.requests.map(given),
    ...(follow && { follow: (id: RequestId, nowUs: number) => given(follow(id, nowUs)) }),
  }
}

/** The same fleet with up to `depth` batches in flight at each replica: one in half of all seeds, else two to four. Of these,
 * engines of every other seed own their KV and deviate from their plans, where nothing is moved between replicas. */
export function ofSomeDepth(fleet: FleetOptions, seed: number, depth?: number): FleetOptions {
  const random = new Random("sim fuzz depth", seed)
  const most = depth ?? (random.uniform() < 0.5 ? 1 : random.integer(2, 5))
  const engineOwnsKv = fleet.disaggregated === undefined && most > 1 && random.uniform() < 0.5
  if (most === 1) return fleet
  if (!engineOwnsKv && random.uniform() < 0.5)
    return { ...alone(fleet), replicas: [{ ...fleet.replicas[0]!, depth: most }] }
  if (engineOwnsKv && new Random("sim fuzz blocks", seed).uniform() < 0.4) return pooled(fleet, seed, most)
  const share = pick(random, [0.02, 0.1, 0.3])
  const own = fleet.replicas.map((_, replica): Fault => ({ kind: "ownWays", replica, share }))
  return {
    ...fleet,
    replicas: fleet.replicas.map((config) => ({ ...config, depth: most, engineOwnsKv })),
    faults: [...(fleet.faults ?? []), ...(engineOwnsKv ? own : [])],
  }
}

/** Of the engines with several batches in flight, those of some seeds schedule only tokens that they know. */
export function ofSomeLag(fleet: FleetOptions, seed: number): FleetOptions {
  const random = new Random("sim fuzz lag", seed)
  const { depth = 1 } = fleet.replicas[0]!
  if (depth === 1 || random.uniform() < 0.7) return fleet
  const tokenLag = random.integer(1, depth)
  return { ...fleet, replicas: fleet.replicas.map((config) => ({ ...config, tokenLag })) }
}

/** Engines with a pool of blocks of their own, short of them, whose requests begin alike and come at the same times. */
function pooled(fleet: FleetOptions, seed: number, depth: number): FleetOptions {
  const random = new Random("sim fuzz families", seed)
  const { blockTokens, contextTokens } = fleet.replicas[0]!.limits
  const kvTokens = contextTokens * pick(random, [1, 1.5, 2.5])
  const own = fleet.replicas.map((_, replica): Fault => ({ kind: "ownBlocks", replica }))
  const requests = fleet.requests.map((request) => {
    const { id, session, promptTokens } = request.spec
    if (session >= 0) return request
    const family = random.integer(1, 4)
    const common = random.integer(0, promptTokens / blockTokens + 1)
    const count = Math.floor((promptTokens + request.outputTokens) / blockTokens)
    const blocks = Array.from({ length: count }, (_, i) =>
      i < common ? -1000 * family - i : (id + 20_000) * 1000 + i,
    )
    const prefix = blocks.slice(0, Math.floor(promptTokens / blockTokens))
    const soonerUs = request.atUs % 250_000
    return {
      ...request,
      ...{ atUs: request.atUs - soonerUs, blocks, spec: { ...request.spec, prefix } },
      ...(request.cancelAtUs !== undefined && { cancelAtUs: request.cancelAtUs - soonerUs }),
    }
  })
  return {
    ...fleet,
    requests,
    replicas: fleet.replicas.map((config) => ({
      ...config,
      ...{ limits: { ...config.limits, kvTokens, unifiedKv: true }, depth, engineOwnsKv: true },
      cost: { ...config.cost, unifiedKv: true },
    })),
    faults: [...(fleet.faults ?? []), ...own],
  }
}

/** The requests share nothing, and one replica serves them: its KV can be counted apart from the core (kv-audit.ts). */
function alone({ disaggregated: _, follow: __, ...fleet }: FleetOptions): FleetOptions {
  const requests = fleet.requests.map(({ blocks: ___, ...request }) => ({
    ...request,
    spec: { ...request.spec, session: -1, prefix: [] },
  }))
  const faults = (fleet.faults ?? []).filter(({ kind }) => kind !== "lostReplica")
  return { ...fleet, requests, faults }
}

function pick<T>(random: Random, of: readonly T[]): T {
  return of[random.integer(0, of.length)]!
}

function exactConfig(random: Random, policy: PolicyName): ReplicaConfig {
  const contextTokens = 512
  const limits: EngineLimits = {
    kvTokens: contextTokens * MOST_LIVE,
    blockTokens: 16,
    maxSequences: MOST_LIVE,
    maxBatchTokens: 4096,
    contextTokens,
    minChunkTokens: 1,
    unifiedKv: true,
  }
  const options = { ...speculation(random), admission: "firm" as const, margin: pick(random, [0, 0.1]) }
  return { limits, cost: gpuCost(true), policy, apps: APPS, options }
}

function speculation(random: Random): Partial<PolicyOptions> {
  if (random.uniform() < 0.5) return {}
  return { speculation: "on", maxSpeculation: random.integer(2, 9) }
}

function configOf(random: Random, policy: PolicyName): ReplicaConfig {
  const unifiedKv = random.uniform() < 0.6
  const maxSequences = random.integer(2, 13)
  const contextTokens = 512
  const limits: EngineLimits = {
    kvTokens: contextTokens * (unifiedKv ? random.integer(1, maxSequences + 1) : maxSequences),
    blockTokens: 16,
    maxSequences,
    maxBatchTokens: pick(random, [64, 256, 512]),
    contextTokens,
    minChunkTokens: pick(random, [1, 16, 64]),
    unifiedKv,
  }
  const options: Partial<PolicyOptions> = {
    admission: random.uniform() < 0.3 ? "firm" : "revocable",
    margin: pick(random, [0, 0.1, 0.2]),
    tokenBudget: pick(random, [64, 256]),
    ...speculation(random),
  }
  return { limits, cost: costOf(random, unifiedKv), policy, apps: APPS, options }
}

function costOf(random: Random, unifiedKv: boolean): CostModel {
  if (random.uniform() < 0.5) return gpuCost(unifiedKv)
  const piece = { step: 4000, passes: 2000, tokens: 300, sequences: 300, slowPairs: 0.5, fastPairs: 0.1 }
  return { pieces: [piece], residualSigma: 0.05, fastPassTokens: 64, unifiedKv }
}

/** Of the paper's form, on the small side. */
function gpuCost(unifiedKv: boolean): CostModel {
  const pieces = [
    { step: 8000, tokens: 40, specSteps: 500 },
    { step: 2000, tokens: 80, specSteps: 500 },
  ]
  return { pieces, residualSigma: 0.05, fastPassTokens: 64, unifiedKv }
}

function routerOf(random: Random) {
  return {
    kind: pick(random, ROUTER_KINDS),
    hops: random.integer(1, 4),
    affinity: random.uniform() < 0.4,
    reoffers: random.uniform() < 0.4 ? random.integer(1, 4) : 0,
  }
}

/** Any faults, but the first replica of each side survives. */
function faultsOf(random: Random, replicas: number, split: number): Fault[] {
  const faults: Fault[] = []
  const some = (most: number) => (random.uniform() < 0.5 ? random.integer(1, most + 1) : 0)
  const time = () => random.integer(0, SPAN_US)
  for (let i = some(4); i > 0; i--) {
    const reason = pick(random, ["kvFull", "engineError"] as const)
    faults.push({ kind: "failedStep", replica: random.integer(0, replicas), atUs: time(), reason })
  }
  for (let i = some(2); i > 0; i--) {
    const fromUs = time()
    const untilUs = fromUs + random.integer(1, SPAN_US)
    const factor = pick(random, [2, 10])
    faults.push({ kind: "slowSteps", replica: random.integer(0, replicas), fromUs, untilUs, factor })
  }
  for (let i = some(replicas); i > 0; i--) {
    const replica = random.integer(0, replicas)
    if (replica !== 0 && replica !== split) faults.push({ kind: "lostReplica", replica, atUs: time() })
  }
  if (random.uniform() < 0.3) faults.push({ kind: "staleSnapshots", ageUs: random.integer(1, 1_000_000) })
  return faults
}

type Player = (id: RequestId, atUs: number, session: number, history: number) => SimRequest

/** Requests on whole 10 ms, so that many things happen at once. */
function playersOf(random: Random, limits: EngineLimits, exact: boolean, gaps: Random): Player {
  const paces = exact ? [60_000, 200_000] : [20_000, 60_000, 200_000]
  const slos = Array.from({ length: APPS }, () => ({
    ttftUs: pick(random, [50_000, 300_000, 2_000_000, Infinity]),
    ttftSlowdown: random.uniform() < 0.2 ? 4 : 0,
    tpotUs: pick(random, [...paces, Infinity]),
    thinkingTpotUs: pick(random, paces),
    // Plans to the token know TPOTs only: a gap would break promises that they may make.
    maxGapUs: exact ? Infinity : pick(gaps, [30_000, 150_000, Infinity, Infinity]),
  }))
  return (id, atUs, session, history) => {
    const app = random.integer(0, APPS)
    const room = limits.contextTokens - history
    const promptTokens = history + random.integer(1, Math.max(2, Math.min(300, room >> 1)))
    const outputTokens = random.integer(1, Math.min(80, limits.contextTokens - promptTokens) + 1)
    const spare = limits.contextTokens - promptTokens - outputTokens
    const thinkingTokens = !exact && random.uniform() < 0.2 ? random.integer(0, outputTokens) : 0
    const blocks = Array.from(
      { length: Math.floor((promptTokens + outputTokens) / limits.blockTokens) },
      (_, i) => (session < 0 ? id + 10_000 : session) * 1000 + i,
    )
    return {
      atUs,
      outputTokens,
      thinkingTokens,
      acceptance: pick(random, [0, 0.4, 0.7, 1]),
      ...(random.uniform() < 0.15 && { cancelAtUs: atUs + Math.max(0, random.integer(-20, 100)) * 10_000 }),
      ...(session >= 0 && { blocks }),
      spec: {
        id,
        app,
        session,
        promptTokens,
        maxOutputTokens: outputTokens + random.integer(0, spare + 1),
        prefix: session < 0 ? [] : blocks.slice(0, Math.floor(promptTokens / limits.blockTokens)),
        slo: slos[app]!,
        tier: random.uniform() < 0.15 ? "bestEffort" : "slo",
        thinking: thinkingTokens > 0,
      },
    }
  }
}

/** First rounds, and later ones for those that are sessions; ids in order of making. */
function sessionsOf(random: Random, limits: EngineLimits, player: Player, count: number, spanUs: number) {
  let nextId = 0
  const history = new Map<RequestId, SimRequest & { roundsLeft: number }>()
  const begin = (atUs: number, session: number, before: number, roundsLeft: number) => {
    const request = player(nextId++, atUs, session, before)
    history.set(request.spec.id, { ...request, roundsLeft })
    return request
  }
  const requests = Array.from({ length: count }, (_, i) => {
    const atUs = Math.floor((random.uniform() ** 2 * spanUs) / 10_000) * 10_000
    const rounds = random.uniform() < 0.2 ? random.integer(1, 4) : 0
    return begin(atUs, rounds > 0 ? i : -1, 0, rounds)
  })
  const follow = (id: RequestId, nowUs: number): SimRequest | null => {
    const { spec, outputTokens, roundsLeft } = history.get(id)!
    const tokens = spec.promptTokens + outputTokens
    if (roundsLeft === 0 || tokens > limits.contextTokens - 20) return null
    return begin(nowUs + random.integer(0, 20) * 10_000, spec.session, tokens, roundsLeft - 1)
  }
  return { requests, follow }
}
