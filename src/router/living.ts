/** Which replicas to look at, among those not known to be lost: in turn, or drawn. The cost does not grow with the fleet
 * while most of it lives. */
import type { Chances, ReplicaView } from "./target.ts"

/** Up to `count` living replicas from place `start` on, without `except`. */
export function inTurn(
  targets: readonly ReplicaView[],
  start: number,
  count: number,
  except: number,
): number[] {
  const found: number[] = []
  for (let i = 0; i < targets.length && found.length < count; i++) {
    const index = (start + i) % targets.length
    if (index !== except && targets[index]!.alive) found.push(index)
  }
  return found
}

/** A draw that met a lost replica is drawn again from what is left of its number, so often. */
const MOST_DRAWS = 3

/** Two different living replicas; one where there is no other; none where all are lost. */
export function twoDrawn(targets: readonly ReplicaView[], chances: Chances, except: number): number[] {
  const fit = (index: number) => index !== except && targets[index]!.alive
  let [first, second] = chances
  for (let i = 0; i < MOST_DRAWS && targets.length > 1; i++) {
    const [a, b] = pairOf(targets.length, first, second)
    if (fit(a) && fit(b)) return [a, b]
    first = rest(first * targets.length)
    second = rest(second * (targets.length - 1))
  }
  const living = inTurn(targets, 0, targets.length, except)
  if (living.length < 2) return living
  const [a, b] = pairOf(living.length, first, second)
  return [living[a]!, living[b]!]
}

/** Two different places of `count`, each pair as likely as any other. */
function pairOf(count: number, first: number, second: number): [number, number] {
  const a = Math.floor(first * count)
  return [a, (a + 1 + Math.floor(second * (count - 1))) % count]
}

const rest = (value: number) => value - Math.floor(value)
