/** What some cases of the simulation fuzz have besides, each by luck of its own: a seed stays the case that it was but for that. */
import type { ReplicaConfig } from "../core/replica.ts"
import { Random } from "../random.ts"
import type { FleetOptions } from "./fleet.ts"
import type { FuzzCase } from "./fuzz-case.ts"

/** In one case in three, some prompts are scored (RequestSpec.allRows), and rows take time. Plans to the token know of no rows, and
 * what others have computed of a scored prompt is of no use to it. */
export function withSomeScored(
  fleet: FleetOptions,
  { seed, exact }: Pick<FuzzCase, "seed" | "exact">,
): FleetOptions {
  const random = new Random("sim fuzz rows", seed)
  if (exact || random.uniform() >= 1 / 3) return fleet
  const outputs = [0, 20, 200][random.integer(0, 3)]!
  const costly = (config: ReplicaConfig): ReplicaConfig => {
    const pieces = config.cost.pieces.map((piece) => ({ ...piece, outputs }))
    return { ...config, cost: { ...config.cost, pieces } }
  }
  const requests = fleet.requests.map((request) => {
    const { spec } = request
    const isScored = random.uniform() < 0.4
    if (!isScored || spec.session >= 0 || spec.prefix.length > 0) return request
    return { ...request, spec: { ...spec, allRows: true } }
  })
  return { ...fleet, requests, replicas: fleet.replicas.map(costly) }
}

/** Of engines that own their KV one in two has plans renewed that do not know of an arrival: all of them, or the longer ones. */
export function withSomeRenewed(fleet: FleetOptions, { seed }: Pick<FuzzCase, "seed">): FleetOptions {
  const random = new Random("sim fuzz renewal", seed)
  if (fleet.replicas[0]!.engineOwnsKv !== true || random.uniform() < 0.5) return fleet
  const fromUs = [0, 9000, 20_000][random.integer(0, 3)]!
  return { ...fleet, renewal: { fromUs, answerUs: [0, 300, 5000][random.integer(0, 3)]! } }
}
