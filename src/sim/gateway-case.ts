/** A random fleet behind a gateway, with random faults between them and in them: all from one seed. */
import type { RequestId } from "../core/protocol.ts"
import { Random } from "../random.ts"
import type { RouterOptions } from "../router/router.ts"
import { fuzzCase } from "./fuzz-case.ts"
import type { GatewayFault, Network } from "./gateway-faults.ts"
import type { GatewayOptions } from "./gateway-options.ts"

export interface GatewayCase {
  seed: number
  options: GatewayOptions
  poisoned: ReadonlySet<RequestId>
  /** Nothing but poison kills: no other request may be failed for it. */
  onlyPoison: boolean
}

const SPAN_US = 4_000_000
const MOST_REPLICAS = 6

export function gatewayCase(seed: number): GatewayCase {
  const { fleet } = fuzzCase(seed)
  const random = new Random("gateway fuzz", seed)
  const [config] = fleet.replicas
  const replicas = Array.from({ length: random.integer(1, MOST_REPLICAS + 1) }, () => config!)
  const poison = random.uniform() < 0.25 ? poisonOf(random, fleet.requests.length) : []
  const onlyPoison = poison.length > 0 && random.uniform() < 0.5
  const faults = onlyPoison ? [] : faultsOf(random, replicas.length)
  const patienceUs = pick(random, [300_000, 2_000_000, 60_000_000])
  return {
    ...{ seed, onlyPoison },
    poisoned: new Set(poison.map(({ request }) => request)),
    options: {
      ...{ seed, replicas, requests: fleet.requests, faults: [...faults, ...poison] },
      ...(fleet.follow && { follow: fleet.follow }),
      noiseSigma: fleet.noiseSigma ?? 0,
      bias: fleet.bias ?? 1,
      router: { ...(fleet.router as RouterOptions), reoffers: random.integer(0, 4) },
      network: networkOf(random),
      digestUs: pick(random, [20_000, 100_000, 500_000]),
      remote: random.uniform() < 0.4,
      startUs: random.integer(0, 1_000_000),
      startFails: pick(random, [0, 0, 0.3, 0.8]),
      restarts: { firstUs: 100_000, longestUs: 3_000_000, stableUs: 2_000_000 },
      dispatch: { health: { silenceUs: 1_500_000 } },
      patienceUs: () => patienceUs,
      onPromise: ({ spec }) => spec.tier === "slo" && (spec.id + seed) % 4 === 0,
      ...{ check: true, checkCores: seed % 10 === 0 },
      mostUs: 600_000_000,
      ...pick(random, [{}, { foresees: "rightly" }, { foresees: "wrongly" }] as const),
    },
  }
}

function pick<T>(random: Random, of: readonly T[]): T {
  return of[random.integer(0, of.length)]!
}

function networkOf(random: Random): Network {
  return {
    latencyUs: pick(random, [1, 100, 2_000, 20_000]),
    jitterUs: pick(random, [0, 1_000, 30_000]),
    lost: pick(random, [0, 0.02, 0.3]),
    twice: pick(random, [0, 0.1]),
    late: pick(random, [0, 0.1]),
    lateUs: random.integer(1, 400_000),
  }
}

/** One or two requests that kill, at their first token or after some. */
function poisonOf(random: Random, requests: number): Extract<GatewayFault, { kind: "poison" }>[] {
  return Array.from({ length: random.integer(1, 3) }, () => ({
    kind: "poison" as const,
    request: random.integer(0, requests),
    after: pick(random, [0, 0, random.integer(1, 20)]),
  }))
}

function faultsOf(random: Random, replicas: number): GatewayFault[] {
  const faults: GatewayFault[] = []
  const some = (most: number) => (random.uniform() < 0.6 ? random.integer(1, most + 1) : 0)
  const place = () => ({ replica: random.integer(0, replicas), atUs: random.integer(0, SPAN_US) })
  for (let i = some(6); i > 0; i--) faults.push({ kind: "death", ...place() })
  for (let i = some(3); i > 0; i--)
    faults.push({ kind: "freeze", ...place(), forUs: pick(random, [50_000, 800_000, 5_000_000]) })
  for (let i = some(4); i > 0; i--)
    faults.push({ kind: "cut", ...place(), forUs: random.integer(0, 2_000_000) })
  for (let i = some(2); i > 0; i--)
    faults.push({ kind: "drain", ...place(), forUs: random.integer(0, 2_000_000) })
  for (let i = some(2); i > 0; i--) faults.push({ kind: "nonsense", ...place() })
  for (let i = some(2); i > 0; i--) {
    const { replica, atUs: fromUs } = place()
    const untilUs = fromUs + random.integer(1, SPAN_US)
    faults.push({ kind: "slowSteps", replica, fromUs, untilUs, factor: pick(random, [2, 10]) })
  }
  if (random.uniform() < 0.2) faults.push({ kind: "gatewayLoss", atUs: random.integer(0, SPAN_US) })
  return faults
}
