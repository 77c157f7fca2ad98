/** What happens to a fleet, and when: a pure function of the seed. Where the fleet cannot take it just then (no other replica
 * is ready), a fault waits. */
import { Random } from "../../../src/random.ts"

export const FAULT_KINDS = ["kill", "stop", "pause", "slow", "cut", "corrupt", "gateway"] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

/** In the words of the table. */
export const FAULT_WORDS: Record<FaultKind, string> = {
  kill: "kill −9 of a replica",
  stop: "SIGSTOP, not resumed until it was given up",
  pause: "SIGSTOP, resumed within 2 s",
  slow: "10 times as slow for some seconds",
  cut: "sockets of a replica cut",
  corrupt: "bits of frames flipped",
  gateway: "kill −9 of a gateway",
}

export interface Fault {
  /** From the start of the load. */
  atMs: number
  kind: FaultKind
  /** Which replica or gateway, in [0, 1). */
  place: number
  /** For how long, in [0, 1) of its kind's range. */
  length: number
}

/** Kinds come in turn, each time in another order, so that all come about equally often. */
export function planFaults(
  seed: number,
  { lengthMs, gapMs, kinds }: { lengthMs: number; gapMs: number; kinds: readonly FaultKind[] },
): Fault[] {
  const random = new Random(seed)
  const faults: Fault[] = []
  let turn: FaultKind[] = []
  for (let atMs = gapMs; atMs < lengthMs; atMs += gapMs * (0.5 + random.uniform())) {
    if (turn.length === 0) turn = shuffled(kinds, random)
    faults.push({ atMs, kind: turn.pop()!, place: random.uniform(), length: random.uniform() })
  }
  return faults
}

function shuffled(kinds: readonly FaultKind[], random: Random): FaultKind[] {
  const left = [...kinds]
  return kinds.map(() => left.splice(random.below(left.length), 1)[0]!)
}
