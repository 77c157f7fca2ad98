/** What goes wrong in a simulation, and when. */
import { assert } from "../core/assert.ts"
import type { StepFailure } from "../core/protocol.ts"

/** Times are µs of virtual time; `replica` is an index into the fleet. */
export type Fault =
  /** The first step begun at or after `atUs` fails. */
  | { kind: "failedStep"; replica: number; atUs: number; reason: StepFailure }
  /** Steps begun in [fromUs, untilUs) take `factor` times as long. */
  | { kind: "slowSteps"; replica: number; fromUs: number; untilUs: number; factor: number }
  /** The replica and the KV on it are gone; its requests go on elsewhere. */
  | { kind: "lostReplica"; replica: number; atUs: number }
  /** The router sees replicas as they were at least `ageUs` ago (losses too). */
  | { kind: "staleSnapshots"; ageUs: number }
  /** The engine owns its KV (ReplicaConfig.engineOwnsKv), and deviates from its plans on so large a share of all occasions
   * (own-ways.ts). */
  | { kind: "ownWays"; replica: number; share: number }
  /** The engine owns its KV and has it in a pool of blocks of its own, whose free ones it counts (pooled-ways.ts). */
  | { kind: "ownBlocks"; replica: number }

/** The faults of one run, asked for as it goes. */
export class Faults {
  readonly losses: readonly Extract<Fault, { kind: "lostReplica" }>[]
  /** 0 when the router sees the present. */
  readonly staleUs: number
  #ownWays: readonly Extract<Fault, { kind: "ownWays" }>[]
  #ownBlocks: ReadonlySet<number>
  #failures: Extract<Fault, { kind: "failedStep" }>[]
  #slow: readonly Extract<Fault, { kind: "slowSteps" }>[]

  constructor(faults: readonly Fault[]) {
    this.losses = faults.filter((fault) => fault.kind === "lostReplica")
    this.#failures = faults.filter((fault) => fault.kind === "failedStep").sort((a, b) => a.atUs - b.atUs)
    this.#ownWays = faults.filter((fault) => fault.kind === "ownWays")
    this.#ownBlocks = new Set(faults.flatMap((fault) => (fault.kind === "ownBlocks" ? [fault.replica] : [])))
    this.#slow = faults.filter((fault) => fault.kind === "slowSteps")
    this.staleUs = Math.max(0, ...faults.map((fault) => (fault.kind === "staleSnapshots" ? fault.ageUs : 0)))
  }

  /** Some replica of `members` must outlive every loss. */
  requireSurvivor(members: readonly number[]): void {
    const lost = new Set(this.losses.map(({ replica }) => replica))
    assert(
      members.some((replica) => !lost.has(replica)),
      "every replica of a kind would be lost",
    )
  }

  /** How often it deviates from its plans. */
  ownWays(replica: number): number {
    return Math.max(
      0,
      ...this.#ownWays.filter((fault) => fault.replica === replica).map(({ share }) => share),
    )
  }

  ownBlocks(replica: number): boolean {
    return this.#ownBlocks.has(replica)
  }

  slowdown(replica: number, nowUs: number): number {
    let factor = 1
    for (const fault of this.#slow) {
      if (fault.replica === replica && fault.fromUs <= nowUs && nowUs < fault.untilUs) factor *= fault.factor
    }
    return factor
  }

  /** Why the step begun now fails, or null. Each failure happens once. */
  failure(replica: number, nowUs: number): StepFailure | null {
    const found = this.#failures.findIndex((fault) => fault.replica === replica && fault.atUs <= nowUs)
    if (found < 0) return null
    return this.#failures.splice(found, 1)[0]!.reason
  }
}
